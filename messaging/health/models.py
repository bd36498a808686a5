"""Signs of life of the processes that are no nodes. Written by `messaging.health.actions` only."""

from __future__ import annotations

from django.db import models


class Process(models.Model):
    """A worker or a beat; nodes have leases. All times are by the database's clock."""

    class Kind(models.TextChoices):
        WORKER = "worker", "worker"
        BEAT = "beat", "beat"

    kind = models.CharField(max_length=8, choices=Kind.choices)
    name = models.CharField(max_length=160)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    stopped_at = models.DateTimeField(
        null=True, blank=True, help_text="Set where it said that it ends."
    )

    class Meta:
        verbose_name = "state of the hub"
        verbose_name_plural = "state of the hub"
        ordering = ["kind", "name"]
        constraints = [models.UniqueConstraint("kind", "name", name="process_of_kind")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
