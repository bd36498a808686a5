"""API tokens, with which programs read the API in a person's name, and the forms sent lately."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class ApiToken(models.Model):
    """An API token of a person, with that person's rights. Only its SHA-256 is stored."""

    token_hash = models.CharField(max_length=43, unique=True, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="api_tokens"
    )
    name = models.CharField(max_length=80, help_text="What it is for, such as the SIEM feed.")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API token"

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"


class SentForm(models.Model):
    """An officers' form that was sent, by the number in it. It works once."""

    nonce = models.CharField(max_length=32, primary_key=True)
    sent_at = models.DateTimeField(auto_now_add=True, db_index=True)

    def __str__(self) -> str:
        return f"form sent at {self.sent_at:%Y-%m-%d %H:%M}Z"
