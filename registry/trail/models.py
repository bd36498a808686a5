"""The trail: one row for each event, appended in the event's transaction and never changed.

See docs/design/provenance.md#entry.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from django.db import models

from registry.trail.querysets import EntryQuerySet, PlacedQuerySet


class AppendOnly(models.Model):
    """A base class that refuses `save` and `delete`.

    Database triggers refuse the same for every other program (`registry/trail/triggers.py`).
    """

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise `TypeError`: only `registry.trail.actions` appends rows."""
        raise TypeError(f"only registry.trail.actions appends {type(self).__name__} rows")

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise `TypeError`: no row is ever deleted."""
        raise TypeError(f"{type(self).__name__} rows are never deleted")


class Entry(AppendOnly):
    """The header of an entry, its leaf and the hash of the leaf (RFC 9162, section 2.1.1).

    `index` counts from 0 without gaps. `time` never goes back (docs/design/provenance.md#time).
    """

    index = models.BigIntegerField(primary_key=True)
    time = models.DateTimeField()
    hub = models.CharField(max_length=64)
    kind = models.CharField(max_length=40)
    actor = models.CharField(max_length=140, blank=True)
    subject = models.CharField(max_length=200, blank=True)
    sender = models.CharField(max_length=128, blank=True)
    recipient = models.CharField(max_length=128, blank=True)
    message_id = models.CharField(max_length=36, blank=True)
    request_id = models.CharField(max_length=128, blank=True)
    sensitivity = models.CharField(max_length=12, blank=True)
    verdict = models.CharField(max_length=12, blank=True)
    policy = models.CharField(max_length=120, blank=True)
    rule = models.CharField(max_length=160, blank=True)
    issuer = models.CharField(max_length=120, blank=True)
    score = models.PositiveSmallIntegerField(null=True, blank=True)
    leaf = models.BinaryField()
    leaf_hash = models.BinaryField()

    objects = EntryQuerySet.as_manager()

    class Meta:
        ordering = ["index"]
        verbose_name_plural = "entries"
        permissions: ClassVar = [
            ("view_officer_names", "Can see the names of people beside their pseudonyms")
        ]
        indexes = [
            models.Index(fields=["time", "index"], name="entry_time"),
            models.Index(fields=["kind", "index"], name="entry_kind"),
            models.Index(fields=["sender", "index"], name="entry_sender"),
            models.Index(fields=["recipient", "index"], name="entry_recipient"),
            models.Index(fields=["message_id", "index"], name="entry_message"),
            models.Index(fields=["request_id", "index"], name="entry_request"),
            models.Index(fields=["actor", "index"], name="entry_actor"),
            models.Index(fields=["subject", "index"], name="entry_subject"),
            *(
                models.Index(
                    fields=[name, "index"],
                    name=f"entry_{name}",
                    condition=models.Q(**{f"{name}__named": True}),
                )
                for name in ("sensitivity", "verdict", "policy", "rule", "issuer")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.index} {self.kind}"


class EntryBody(AppendOnly):
    """The body of an entry: the RFC 8785 bytes whose SHA-256 is in the leaf.

    `reason` copies the reason out of the body, for lists and searches. Erasing a body erases it
    too.
    """

    REASON_MAX_CHARS = 400

    entry = models.OneToOneField(
        Entry,
        primary_key=True,
        on_delete=models.PROTECT,
        related_name="body",
        db_column="index",
        db_constraint=False,  # one function writes both, so PostgreSQL needs no look-up a row
    )
    content = models.BinaryField()
    reason = models.CharField(max_length=REASON_MAX_CHARS, blank=True, db_default="")

    objects = PlacedQuerySet["EntryBody"].as_manager()

    class Meta:
        verbose_name_plural = "entry bodies"

    def __str__(self) -> str:
        return f"body of entry {self.entry_id}"


class RefusalCount(models.Model):
    """Refusals of one agent with one error code in one minute, until their sum is entered.

    `agent` is empty if the refused caller is not known.
    """

    agent = models.CharField(max_length=128, blank=True)
    code = models.CharField(max_length=40)
    minute = models.DateTimeField()
    count = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint("agent", "code", "minute", name="refusal_count_of_a_minute")
        ]

    def __str__(self) -> str:
        return f"{self.count} x {self.code} by {self.agent or 'an unknown caller'}"
