"""People's pseudonyms, their API tokens, what they have opened, and the forms sent lately."""

from __future__ import annotations

import secrets
from datetime import datetime

from django.conf import settings
from django.db import models

PSEUDONYM_BYTES = 12  # random, so nobody can compute a person's pseudonym


def new_pseudonym() -> str:
    """Return a pseudonym for a person, such as `officer:` and 24 random hexadecimal digits."""
    return f"officer:{secrets.token_hex(PSEUDONYM_BYTES)}"


class Person(models.Model):
    """The pseudonym of an account. Without this row, nothing leads from the one to the other."""

    account = models.OneToOneField(
        settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.PROTECT, related_name="person"
    )
    pseudonym = models.CharField(max_length=32, unique=True, default=new_pseudonym, editable=False)

    class Meta:
        verbose_name_plural = "people"

    def __str__(self) -> str:
        return self.pseudonym


class ErasedPerson(models.Model):
    """A pseudonym whose name and account are forgotten. The entries about it stand."""

    pseudonym = models.CharField(max_length=32, primary_key=True, editable=False)
    erased_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.pseudonym


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


class Engagement(models.Model):
    """The time and the scope in which the account of an auditor may read.

    `organisations` are uids; `everything` is a scope without limits. The auditor sets a password by
    a link that works once; only the link's SHA-256 is stored.
    """

    account = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="engagement"
    )
    everything = models.BooleanField(default=False)
    organisations = models.JSONField(default=list)
    begins_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)
    link_hash = models.CharField(max_length=43, unique=True, editable=False)
    link_expires_at = models.DateTimeField(editable=False)
    link_used_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"engagement of {self.account.get_username()}"

    def is_running(self, now: datetime) -> bool:
        """Return whether the account may read at this time."""
        return self.ended_at is None and self.begins_at <= now < self.ends_at


class AdminReading(models.Model):
    """What one person has opened in the admin within one window of time, and how often.

    `window` is its start. `said` is what the entry of the reading holds. `is_entered` is whether
    the first opening has an entry of its own; the others are entered when the window is over.
    """

    actor = models.CharField(max_length=32)
    window = models.DateTimeField()
    kind = models.CharField(max_length=40)
    subject = models.CharField(max_length=200)
    digest = models.CharField(max_length=43)
    said = models.JSONField(default=dict)
    count = models.PositiveIntegerField(default=1)
    is_entered = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                "actor", "window", "kind", "digest", name="admin_reading_of_a_window"
            )
        ]
        indexes = [models.Index(fields=["window"], name="admin_reading_window")]

    def __str__(self) -> str:
        return f"{self.count} x {self.kind} {self.subject} by {self.actor}"


class SentForm(models.Model):
    """An officers' form that was sent, by the number in it. It works once."""

    nonce = models.CharField(max_length=32, primary_key=True)
    sent_at = models.DateTimeField(auto_now_add=True, db_index=True)

    def __str__(self) -> str:
        return f"form sent at {self.sent_at:%Y-%m-%d %H:%M}Z"
