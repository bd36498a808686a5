"""Issuers, who vouch for agents, and the keys that they sign with."""

from __future__ import annotations

from django.db import models

from registry.agents.models import LEVEL_CHOICES


class Issuer(models.Model):
    """An issuer of attestations: a trust anchor (no parent), or accredited by its parent.

    See docs/design/trust.md#issuers.
    """

    class Status(models.TextChoices):
        """The states in which a row can be."""

        ACTIVE = "active", "active"
        SUSPENDED = "suspended", "suspended"
        REVOKED = "revoked", "revoked"

    slug = models.SlugField(
        max_length=60, unique=True, help_text="Part of its URL; it can't be changed later."
    )
    name = models.CharField(max_length=120, unique=True)
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="children"
    )
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.ACTIVE)
    status_reason = models.CharField(max_length=300, blank=True)
    highest_level = models.CharField(
        max_length=12,
        choices=LEVEL_CHOICES,
        default="certified",
        help_text="The highest level that it may attest.",
    )
    capability_patterns = models.JSONField(
        default=list,
        blank=True,
        help_text="Capabilities that it may vouch for, such as finance.*; an empty list covers"
        " none.",
    )
    longest_validity_days = models.PositiveIntegerField(default=365)
    not_before = models.DateTimeField(null=True, blank=True)
    not_after = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class IssuerKey(models.Model):
    """A key of an issuer. `private_sealed` is empty if the issuer signs elsewhere."""

    class Status(models.TextChoices):
        """The states in which a row can be."""

        ACTIVE = "active", "active"
        RETIRED = "retired", "retired"
        REVOKED = "revoked", "revoked"

    kid = models.CharField("thumbprint", max_length=64, primary_key=True)
    issuer = models.ForeignKey(Issuer, on_delete=models.PROTECT, related_name="keys")
    algorithm = models.CharField(max_length=16)
    public_jwk = models.JSONField()
    private_sealed = models.BinaryField(
        null=True, blank=True, editable=False, help_text="AES-256-GCM; empty when held elsewhere."
    )
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.ACTIVE)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def seal_anew(self, sealed: bytes) -> None:
        """Store the private key as sealed with the current key-encryption key."""
        self.private_sealed = sealed
        self.save(update_fields=["private_sealed"])

    def __str__(self) -> str:
        return f"{self.issuer} {self.kid[:12]}"
