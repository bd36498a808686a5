"""The hub itself: its id, its registry epoch and its own keys."""

from __future__ import annotations

from django.db import models


class Hub(models.Model):
    """The hub: exactly one row.

    `epoch` goes up in the transaction of every registry change; caches and batches compare it
    (docs/design/trust.md#revocation). `pseudonyms_sealed` and `blinding_sealed` are its secrets
    (`registry/hub/secrets.py`). `watched_at` is when the hub last noted that it runs, and
    `clock_entered_at` when it last entered its clock (`registry/trail/watching.py`).
    """

    SINGLETON_ID = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=SINGLETON_ID, editable=False)
    hub_id = models.CharField(max_length=64, unique=True, editable=False)
    epoch = models.BigIntegerField(default=1, editable=False)
    epoch_moved_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    pseudonyms_sealed = models.BinaryField(null=True, editable=False)
    blinding_sealed = models.BinaryField(null=True, editable=False)
    watched_at = models.DateTimeField(null=True, editable=False)
    clock_entered_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "hub"
        verbose_name_plural = "hub"
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="hub_is_one_row")]

    def __str__(self) -> str:
        return self.hub_id


class HubKey(models.Model):
    """A key of the hub, for one purpose. The private key is sealed (`registry/hub/keyring.py`).

    When a key retires, its private key is deleted. `succession` is an `atp-successor+jwt` that it
    has signed and that names the next key; it is empty if the key was compromised.
    """

    class Purpose(models.TextChoices):
        """The uses of a key of the hub."""

        SESSION = "session", "proves the hub to a connecting agent"

    kid = models.CharField(max_length=64, primary_key=True)
    purpose = models.CharField(max_length=16, choices=Purpose.choices)
    algorithm = models.CharField(max_length=16)
    public_jwk = models.JSONField()
    private_sealed = models.BinaryField()
    created_at = models.DateTimeField(auto_now_add=True)
    retired_at = models.DateTimeField(null=True, blank=True)
    succession = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["purpose"], condition=models.Q(retired_at=None), name="one_current_hub_key"
            )
        ]

    def seal_anew(self, sealed: bytes) -> None:
        """Store the private key as sealed with the current key-encryption key."""
        self.private_sealed = sealed
        self.save(update_fields=["private_sealed"])

    def __str__(self) -> str:
        return f"{self.purpose} {self.kid[:12]}"
