"""The trail: one row for each event, appended in the event's transaction and never changed.

See docs/design/provenance.md#entry.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import orjson
from django.db import models

from atp.log import leaves
from registry.trail.fields import WordsField
from registry.trail.logs import place_of
from registry.trail.querysets import AppendOnlyQuerySet, EntryQuerySet, PlacedQuerySet

# Columns that few kinds of entries have. The index of each holds the entries that do, in the order
# of the log (docs/auditing.md#what-is-fast).
INDEXED_WHERE_NAMED = (
    "sensitivity", "verdict", "policy", "rule", "issuer", "attestation", "trace", "on_behalf_of",
)  # fmt: skip


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


class Log(models.Model):
    """Entries from `first_position` on, up to the next log. The first one is `log.started`.

    A database has more than one if a backup was restored: then the old log ends, because its newest
    entries may be lost, and a new one begins. `previous` names the file to which a trail of an
    older format was exported, with its digest and sizes
    (`registry/migrations/0016_entry_format_1.py`).
    """

    ORIGIN_BYTES = 8

    origin = models.CharField(max_length=40, unique=True, editable=False)
    first_position = models.BigIntegerField(unique=True, editable=False)
    started_at = models.DateTimeField(auto_now_add=True)
    previous = models.JSONField(null=True, editable=False)

    def __str__(self) -> str:
        return self.origin


class Entry(AppendOnly):
    """The header of an entry, its leaf and the hash of the leaf (RFC 9162, section 2.1.1).

    `position` counts from 0 without gaps, over all logs of the database; `index` counts within a
    log. `time` never goes back (docs/design/provenance.md#time). `request_id` and `on_behalf_of`
    are blinded (`registry/hub/secrets.py`).
    """

    version = leaves.VERSION

    position = models.BigIntegerField(primary_key=True)
    time = models.DateTimeField()
    hub = models.CharField(max_length=64)
    kind = models.CharField(max_length=40)
    actor = models.CharField(max_length=140, blank=True)
    subject = models.CharField(max_length=200, blank=True)
    sender = models.CharField(max_length=128, blank=True)
    recipient = models.CharField(max_length=128, blank=True)
    message_id = models.CharField(max_length=36, blank=True)
    session = models.CharField(max_length=64, blank=True)
    sensitivity = models.CharField(max_length=12, blank=True)
    verdict = models.CharField(max_length=12, blank=True)
    policy = models.CharField(max_length=120, blank=True)
    rule = models.CharField(max_length=160, blank=True)
    issuer = models.CharField(max_length=120, blank=True)
    attestation = models.CharField(max_length=64, blank=True)
    trace = models.CharField(max_length=32, blank=True)
    sender_organisation = models.CharField(max_length=24, blank=True)
    recipient_organisation = models.CharField(max_length=24, blank=True)
    request_id = models.CharField(max_length=22, blank=True)
    on_behalf_of = models.CharField(max_length=22, blank=True)
    cause = models.BigIntegerField(null=True, blank=True)
    score = models.PositiveSmallIntegerField(null=True, blank=True)
    organisations = WordsField(blank=True)
    leaf = models.BinaryField()
    leaf_hash = models.BinaryField()

    objects = EntryQuerySet.as_manager()

    class Meta:
        ordering = ["position"]
        verbose_name_plural = "entries"
        permissions: ClassVar = [
            ("view_officer_names", "Can see the names of people beside their pseudonyms")
        ]
        indexes = [
            models.Index(fields=["time", "position"], name="entry_time"),
            models.Index(fields=["kind", "position"], name="entry_kind"),
            models.Index(fields=["sender", "position"], name="entry_sender"),
            models.Index(fields=["recipient", "position"], name="entry_recipient"),
            models.Index(fields=["message_id", "position"], name="entry_message"),
            models.Index(fields=["request_id", "position"], name="entry_request"),
            models.Index(fields=["actor", "position"], name="entry_actor"),
            models.Index(fields=["subject", "position"], name="entry_subject"),
            *(
                models.Index(
                    fields=[name, "position"],
                    name=f"entry_{name}",
                    condition=models.Q(**{f"{name}__named": True}),
                )
                for name in INDEXED_WHERE_NAMED
            ),
        ]

    def __str__(self) -> str:
        return f"{self.position} {self.kind}"

    @property
    def log(self) -> str:
        """Return the origin of the log that holds the entry."""
        return place_of(self.position).log

    @property
    def index(self) -> int:
        """Return the number of the entry in its log."""
        return place_of(self.position).index


class EntryBody(AppendOnly):
    """The sections of an entry's body, each as the RFC 8785 bytes of its digest.

    `digests` are the bytes whose digest is in the leaf: the digest of each section. A section that
    it names and whose column is null was erased. `reason` copies the reason out of `shared`, for
    lists and searches; it is erased together with it.
    """

    REASON_MAX_CHARS = 400

    entry = models.OneToOneField(
        Entry,
        primary_key=True,
        on_delete=models.PROTECT,
        related_name="body",
        db_column="position",
        db_constraint=False,  # one function writes both, so PostgreSQL needs no look-up a row
    )
    digests = models.BinaryField()
    shared = models.BinaryField(null=True)
    sender = models.BinaryField(null=True)
    recipient = models.BinaryField(null=True)
    personal = models.BinaryField(null=True)
    reason = models.CharField(max_length=REASON_MAX_CHARS, null=True, db_default="")

    objects = PlacedQuerySet["EntryBody"].as_manager()

    class Meta:
        verbose_name_plural = "entry bodies"

    def __str__(self) -> str:
        return f"body of entry {self.entry_id}"

    def content(self, section: str = "shared") -> bytes:
        """Return the bytes of a section; none if it was erased, or if the entry has no such."""
        return bytes(getattr(self, section) or b"")

    def read(self, section: str = "shared") -> dict[str, Any]:
        """Return the members of a section; none if it was erased, or if the entry has no such."""
        return dict(orjson.loads(self.content(section) or b"{}"))


class Erasure(AppendOnly):
    """A section of an entry that was erased: the row makes the trigger erase it.

    `entry` is the position of the `retention.erased` entry of the same transaction
    (`registry/trail/triggers.py`).
    """

    REASON_MAX_CHARS = 40

    id = models.BigAutoField(primary_key=True)
    position = models.BigIntegerField()
    section = models.CharField(max_length=12, choices=[(name, name) for name in leaves.SECTIONS])
    entry = models.BigIntegerField()
    reason = models.CharField(max_length=REASON_MAX_CHARS, help_text="The class of the reason.")

    objects = AppendOnlyQuerySet["Erasure"].as_manager()

    class Meta:
        constraints = [models.UniqueConstraint("position", "section", name="erasure_of_a_section")]

    def __str__(self) -> str:
        return f"{self.section} of entry {self.position}"


class LegalHold(models.Model):
    """An order to keep entries, whatever their retention says, until it is lifted.

    It covers the entries about an agent, of an organisation (by uid), or all if both are empty.
    """

    agent = models.CharField(max_length=128, blank=True)
    organisation = models.CharField(max_length=24, blank=True)
    reason = models.CharField(max_length=300)
    placed_at = models.DateTimeField(auto_now_add=True)
    lifted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"hold {self.pk} on {self.agent or self.organisation or 'everything'}"


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
