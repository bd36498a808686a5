"""Policies: named, versioned lists of rules, built from rows (docs/design/trust.md#policies)."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Policy(models.Model):
    """A policy as officers edit it. The hub evaluates its newest `PolicyVersion`."""

    class Mode(models.TextChoices):
        """The modes of a policy."""

        ENFORCE = "enforce", "enforce: it decides"
        MONITOR = "monitor", "monitor: evaluated and recorded, decides nothing"
        OFF = "off", "off"

    name = models.CharField(max_length=120, unique=True)
    description = models.TextField(blank=True)
    mode = models.CharField(max_length=12, choices=Mode.choices, default=Mode.MONITOR)
    mandatory = models.BooleanField(
        default=False, help_text="Owned by the operator. No other policy can allow what it denies."
    )
    priority = models.PositiveSmallIntegerField(
        default=100, help_text="Lower numbers are reported first; they do not decide."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["priority", "name"]
        verbose_name_plural = "policies"

    def __str__(self) -> str:
        return self.name


class Rule(models.Model):
    """Conditions that must all hold, an action and a severity."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="rules")
    name = models.CharField(max_length=160)
    action = models.CharField(max_length=12)
    severity = models.CharField(max_length=12, default="low")
    priority = models.PositiveSmallIntegerField(default=100)
    always = models.BooleanField(
        default=False, help_text="The rule matches every envelope; needed if it has no condition."
    )
    throttle_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="For throttle: how many envelopes of one sender ..."
    )
    throttle_seconds = models.PositiveIntegerField(
        null=True, blank=True, help_text="... in how many seconds."
    )

    class Meta:
        ordering = ["priority", "id"]

    def __str__(self) -> str:
        return self.name


class Condition(models.Model):
    """One test of a rule: a field, an operator and a value.

    The fields and operators are the closed tables of `atp/judging/policy/fields.py`.
    """

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, related_name="conditions")
    field = models.CharField(max_length=160)
    operator = models.CharField(max_length=20)
    value = models.JSONField(null=True, blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.field} {self.operator} {self.value!r}"


class PolicyVersion(models.Model):
    """One saved version of a policy: its document and digest. Rows are never changed."""

    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    document = models.JSONField()
    digest = models.CharField(max_length=43)
    reason = models.CharField(max_length=300)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint("policy", "number", name="policy_version_number")]

    def __str__(self) -> str:
        return f"{self.policy} v{self.number}"


class RuleNotice(models.Model):
    """A notice of a `notify` rule to officers about one sender.

    `count` goes up with each match until an officer has seen the notice; then a new row begins.
    """

    policy = models.CharField(max_length=120)
    rule = models.CharField(max_length=160)
    sender = models.CharField(max_length=128)
    count = models.PositiveIntegerField(help_text="Messages that the rule matched.")
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    recipient = models.CharField("last recipient", max_length=128)
    message_id = models.CharField("last message", max_length=36)
    seen_at = models.DateTimeField(null=True, blank=True)
    seen_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        verbose_name = "notification"
        ordering = ["-last_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["policy", "rule", "sender"],
                condition=models.Q(seen_at__isnull=True),
                name="one_unseen_notice",
            )
        ]

    def __str__(self) -> str:
        return f"{self.rule}: {self.sender}"
