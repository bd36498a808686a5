"""Attestations: trust mark JWTs with which an issuer vouches for an agent."""

from __future__ import annotations

from django.db import models

from registry.agents.models import LEVEL_CHOICES, Agent
from registry.issuers.models import Issuer


class Attestation(models.Model):
    """One signed trust mark. `token` is authoritative; the columns copy its claims for queries.

    Only the revocation and the results of verification are not in the token.
    """

    jti = models.CharField(max_length=64, primary_key=True)
    issuer = models.ForeignKey(Issuer, on_delete=models.PROTECT, related_name="attestations")
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="attestations")
    kid = models.CharField(max_length=64, help_text="The issuer's key that signed it.")
    level = models.CharField(max_length=12, choices=LEVEL_CHOICES)
    capabilities = models.JSONField(default=list)
    jkt = models.CharField(max_length=64, help_text="Thumbprint of the agent key vouched for.")
    issued_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    status_index = models.BigIntegerField(help_text="Index in the issuer's status list.")
    token = models.TextField()
    verified_at = models.DateTimeField(help_text="When it was last verified with success.")
    unreadable_reason = models.CharField(
        max_length=300,
        blank=True,
        help_text="Why the last verification failed; empty if it did not.",
    )
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_reason = models.CharField(max_length=300, blank=True)
    expiry_entered_at = models.DateTimeField(
        null=True, blank=True, help_text="When its expiry was entered in the trail."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-issued_at"]
        constraints = [
            models.UniqueConstraint("issuer", "status_index", name="attestation_status_index")
        ]

    def __str__(self) -> str:
        return f"{self.level} for {self.agent_id} by {self.issuer}"
