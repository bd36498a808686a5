"""Scores with their inputs, the scoring profile, conduct, good traffic and violations."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from atp.wire.words import SEVERITIES
from registry.agents.models import Agent, Organisation


class ScoringProfile(models.Model):
    """One version of the weights and ceilings of scores. The newest version is in force."""

    version = models.PositiveIntegerField(primary_key=True)
    document = models.JSONField()
    reason = models.CharField(max_length=300)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-version"]

    def __str__(self) -> str:
        return f"scoring profile v{self.version}"


class Score(models.Model):
    """A stored score with everything that computes it again. An agent's newest row is current.

    `total` is 0 to 100; `components` are milli-points.
    """

    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="scores")
    total = models.PositiveSmallIntegerField()
    components = models.JSONField()
    ceilings = models.JSONField()
    reasons = models.JSONField()
    inputs = models.JSONField()
    profile_version = models.PositiveIntegerField()
    algorithm_version = models.PositiveSmallIntegerField()
    because = models.CharField(max_length=60, help_text="The event that led to this computation.")
    computed_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["agent", "-id"], name="score_newest")]

    def __str__(self) -> str:
        return f"{self.agent_id}: {self.total}"


class Conduct(models.Model):
    """Inputs of an agent's score that traffic updates: its last 100 signatures and good traffic."""

    agent = models.OneToOneField(Agent, primary_key=True, on_delete=models.PROTECT)
    signatures = models.CharField(
        max_length=100, blank=True, help_text="The last 100 envelopes, newest last: 1 good, 0 bad."
    )
    good_envelopes = models.PositiveIntegerField(
        default=0, help_text="Of the last 90 days, capped per counterparty and day."
    )

    def __str__(self) -> str:
        return f"conduct of {self.agent_id}"


class GoodTraffic(models.Model):
    """Acknowledged envelopes of an agent to one counterparty on one day (UTC); at most 10 count.

    See docs/design/trust.md#the-score.
    """

    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="good_traffic")
    counterparty = models.CharField(max_length=128)
    day = models.DateField()
    count = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint("agent", "counterparty", "day", name="good_traffic_of_a_day")
        ]

    def __str__(self) -> str:
        return f"{self.agent_id} to {self.counterparty} on {self.day}"


class Violation(models.Model):
    """A denied act of an agent that lowers its score, with the rule and its severity.

    `organisation` is the agent's organisation at that time: the violation stays with it.
    An annulled one is closed, too.
    """

    agent = models.ForeignKey(
        Agent, on_delete=models.PROTECT, related_name="violations", db_index=False
    )
    organisation = models.ForeignKey(
        Organisation, on_delete=models.PROTECT, related_name="violations", db_index=False
    )
    severity = models.CharField(
        max_length=12, choices=[(severity, severity) for severity in SEVERITIES]
    )
    rule = models.CharField(max_length=160)
    message_id = models.CharField(max_length=36, blank=True)
    at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    closed_reason = models.CharField(max_length=300, blank=True)
    annulled_at = models.DateTimeField(
        null=True, blank=True, help_text="Since when it counts for nothing: it was a mistake."
    )
    annulled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    annulled_reason = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-at"]
        indexes = [
            models.Index(fields=["agent", "-at"], name="violation_of_agent"),
            models.Index(fields=["agent", "severity", "-at"], name="violation_of_severity"),
            models.Index(
                fields=["organisation", "severity", "-at"], name="violation_of_organisation"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.severity}: {self.rule} ({self.agent_id})"
