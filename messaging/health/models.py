"""Signs of life of workers and beat. Written by messaging/telemetry/processes.py only."""

from __future__ import annotations

from django.db import models


class ProcessKind(models.TextChoices):
    """The kinds of processes that give signs of life; nodes have leases instead."""

    WORKER = "worker", "worker"
    BEAT = "beat", "beat"


class Process(models.Model):
    """A worker or a beat. All times are by the database's clock."""

    kind = models.CharField(max_length=8, choices=ProcessKind.choices)
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
