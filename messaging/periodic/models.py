"""The runs of background tasks. Written by messaging/periodic/actions.py only."""

from __future__ import annotations

from django.db import models

ERROR_MAX_CHARS = 400


class Outcome(models.TextChoices):
    """The states of a run."""

    RUNNING = "running", "running"
    SUCCEEDED = "succeeded", "succeeded"
    FAILED = "failed", "failed"
    LOST = "lost", "did not end"


class BackgroundTask(models.Model):
    """A task by its name in Celery: its last run, and how often it ran and failed.

    For tasks that are not scheduled, only failures are counted: most of them run for every batch.
    """

    name = models.CharField(max_length=120, primary_key=True)
    last_started_at = models.DateTimeField(null=True, blank=True)
    last_ended_at = models.DateTimeField(null=True, blank=True)
    last_succeeded_at = models.DateTimeField(null=True, blank=True)
    last_seconds = models.FloatField("took", null=True, blank=True, help_text="Seconds.")
    last_outcome = models.CharField(max_length=10, choices=Outcome.choices, blank=True)
    last_error = models.CharField(max_length=ERROR_MAX_CHARS, blank=True)
    runs = models.PositiveBigIntegerField(default=0)
    failures = models.PositiveBigIntegerField(default=0)
    failures_in_a_row = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class TaskRun(models.Model):
    """One of the last runs of a scheduled task. All times are by the database's clock."""

    task = models.ForeignKey(
        BackgroundTask, on_delete=models.CASCADE, related_name="last_runs", db_index=False
    )
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    seconds = models.FloatField(null=True, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.RUNNING)
    error = models.CharField(max_length=ERROR_MAX_CHARS, blank=True)
    worker = models.CharField(max_length=120, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["task", "outcome", "-id"], name="task_run_newest")]

    def __str__(self) -> str:
        return f"{self.task_id} {self.outcome}"
