"""Exports that a worker writes, with their progress."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class TrailExport(models.Model):
    """An export to a file. What is left to search are the positions `left_first` to `left_end`.

    The first `size` bytes of the file have `rows` rows. A worker that dies leaves out no row and
    writes none twice: both numbers and what is left are stored together.
    """

    class Outcome(models.TextChoices):
        """How an export ended; empty as long as it has not."""

        COMPLETE = "complete"
        CANCELLED = "cancelled"
        FAILED = "failed"

    name = models.CharField(max_length=32, primary_key=True, editable=False)
    made_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    written_as = models.CharField(max_length=16)
    asked = models.TextField(help_text="The query string of the filters.")
    log_size = models.BigIntegerField(help_text="Entries in the log when it was made.")
    first = models.BigIntegerField()
    end = models.BigIntegerField()
    left_first = models.BigIntegerField()
    left_end = models.BigIntegerField()
    rows = models.BigIntegerField(default=0)
    size = models.BigIntegerField(default=0)
    outcome = models.CharField(max_length=12, choices=Outcome.choices, blank=True, default="")
    reason = models.CharField(max_length=200, blank=True, default="")
    made_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True, db_index=True)

    class Meta:
        ordering = ["-made_at"]

    def __str__(self) -> str:
        return f"export {self.name}"

    @property
    def percent(self) -> int:
        """How much of the log is searched."""
        whole, left = self.end - self.first, self.left_end - self.left_first
        return (
            100 if self.outcome == self.Outcome.COMPLETE or not whole else 99 - 99 * left // whole
        )
