"""Decisions about many rows, with their progress and what they did not do."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class BulkDecision(models.Model):
    """One decision about chosen rows. `subjects` are (primary key, state when chosen) in order.

    It is chosen, then begun with its `values`, then carried out row by row, up to `position`.
    `refusals` are (primary key, why it was not done).
    """

    decision = models.CharField(max_length=40)
    made_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    subjects = models.JSONField()
    total = models.PositiveIntegerField()
    values = models.JSONField(default=dict)
    position = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    refusals = models.JSONField(default=list)
    chosen_at = models.DateTimeField(auto_now_add=True, db_index=True)
    begun_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "decision about many"
        verbose_name_plural = "decisions about many"
        indexes = [
            models.Index(
                fields=["begun_at"],
                name="bulk_under_way",
                condition=models.Q(begun_at__isnull=False, ended_at__isnull=True),
            )
        ]

    def __str__(self) -> str:
        return f"{self.decision} of {self.total}"
