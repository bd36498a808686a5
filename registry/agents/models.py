"""Agents, the organisations they belong to, their keys and their enrolment tokens."""

from __future__ import annotations

import secrets

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models

from atp.types import AGENT_ID
from atp.wire.words import LEVELS, SENSITIVITIES
from registry.agents.querysets import AgentKeyQuerySet, AgentQuerySet, EnrolmentTokenQuerySet

AGENT_ID_PATTERN = rf"^{AGENT_ID.pattern}\Z"

ORGANISATION_UID_BYTES = 8
LEVEL_CHOICES = [(level, level) for level in LEVELS]
SENSITIVITY_CHOICES = [(sensitivity, sensitivity) for sensitivity in SENSITIVITIES]


def new_organisation_uid() -> str:
    """Return a random uid for an organisation."""
    return f"org_{secrets.token_hex(ORGANISATION_UID_BYTES)}"


class Organisation(models.Model):
    """An organisation that owns agents. Violations of its agents also count for its other agents.

    See docs/design/trust.md#the-score. `uid` never changes, so entries name the organisation by it.
    """

    uid = models.CharField(max_length=24, unique=True, editable=False, default=new_organisation_uid)
    name = models.CharField(max_length=120, unique=True)
    contact = models.CharField(max_length=200, blank=True, help_text="The person to call, and how.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Tag(models.Model):
    """A label on agents that policy rules can test, such as `sandbox-host`."""

    name = models.SlugField(max_length=60, unique=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Agent(models.Model):
    """A registered program that sends and receives envelopes.

    `status` moves from pending to active when an officer approves the first key. Revoked is final.
    `minimum_level` and `minimum_score` are what the agent demands of senders.
    `declared_capabilities` is the agent's own claim; an attestation proves a capability.
    """

    class Status(models.TextChoices):
        """The states in which a row can be."""

        PENDING = "pending", "pending"
        ACTIVE = "active", "active"
        SUSPENDED = "suspended", "suspended"
        REVOKED = "revoked", "revoked"

    id = models.CharField(
        "agent id",
        max_length=128,
        primary_key=True,
        validators=[
            RegexValidator(
                AGENT_ID_PATTERN,
                "Lower-case letters, digits, dot, underscore and hyphen; starts with a letter "
                "or digit; at most 128 characters.",
            )
        ],
        help_text="For example financial-analyzer-001. It can't be changed later.",
    )
    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="agents")
    owner_name = models.CharField("owner", max_length=120, help_text="The person to call.")
    owner_contact = models.CharField(
        max_length=200, blank=True, help_text="Mail address or telephone number of the owner."
    )
    tags = models.ManyToManyField(Tag, blank=True, related_name="agents")
    description = models.TextField(blank=True)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.PENDING)
    status_reason = models.CharField(max_length=300, blank=True)
    declared_capabilities = models.JSONField(
        default=list, blank=True, help_text="What the agent says that it can do; it proves nothing."
    )
    sensitivity_floor = models.CharField(
        max_length=12,
        choices=SENSITIVITY_CHOICES,
        default="public",
        help_text="Everything that this agent sends or receives counts as at least this sensitive.",
    )
    minimum_level = models.CharField(
        max_length=12,
        choices=LEVEL_CHOICES,
        blank=True,
        help_text="The lowest trust level of senders that it accepts.",
    )
    minimum_score = models.PositiveSmallIntegerField(
        default=0, help_text="The lowest score (0 to 100) of senders that it accepts."
    )
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="children"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    approved_at = models.DateTimeField(null=True, blank=True, editable=False)
    ended_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When it was suspended or revoked."
    )
    compromised_since = models.DateTimeField(null=True, blank=True, editable=False)

    objects = AgentQuerySet.as_manager()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.id


class AgentKey(models.Model):
    """A public key of an agent. The hub never sees the private key.

    `good_from_entry` and `good_until_entry` are trail indexes: between them the key could sign.
    """

    class Status(models.TextChoices):
        """The states in which a row can be."""

        PENDING = "pending", "waits for an officer"
        ACTIVE = "active", "active"
        RETIRED = "retired", "retired"
        REVOKED = "revoked", "revoked"

    kid = models.CharField("thumbprint", max_length=64, primary_key=True)
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="keys")
    algorithm = models.CharField(max_length=16)
    jwk = models.JSONField()
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.PENDING)
    enrolled_at = models.DateTimeField(auto_now_add=True)
    approved_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    compromised_since = models.DateTimeField(
        null=True, blank=True, help_text="Since when another party may have signed with it."
    )
    rotated_from = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="rotated_to"
    )
    good_from_entry = models.BigIntegerField(
        null=True, blank=True, help_text="Trail index from which it could sign."
    )
    good_until_entry = models.BigIntegerField(
        null=True, blank=True, help_text="Trail index until which it could sign."
    )

    objects = AgentKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-enrolled_at"]

    def __str__(self) -> str:
        return f"{self.agent_id} {self.kid[:12]}"


class EnrolmentToken(models.Model):
    """A one-time token for one agent: 256 random bits, of which only the SHA-256 is stored.

    See docs/design/trust.md#keys.
    """

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="enrolment_tokens")
    token_hash = models.CharField(max_length=43, unique=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    misused_at = models.DateTimeField(
        null=True, blank=True, help_text="When it was tried a second time."
    )

    objects = EnrolmentTokenQuerySet.as_manager()

    def __str__(self) -> str:
        return f"enrolment of {self.agent_id} at {self.created_at:%Y-%m-%d %H:%M}Z"
