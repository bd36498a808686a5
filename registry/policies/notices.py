"""Notices of `notify` rules to officers: count matches, and mark notices as seen.

See docs/design/trust.md#deciding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connection

from registry.change import registry_change
from registry.officers.actor import Actor
from registry.policies.models import RuleNotice
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

# The unique index covers unseen rows only, so a match after a notice was seen makes a new row.
_COUNT_UP = """
INSERT INTO registry_rulenotice
 (policy, rule, sender, recipient, message_id, count, first_at, last_at) VALUES {rows}
ON CONFLICT (policy, rule, sender) WHERE seen_at IS NULL DO UPDATE
SET count = registry_rulenotice.count + excluded.count, last_at = excluded.last_at,
 recipient = excluded.recipient, message_id = excluded.message_id
"""


@dataclass(frozen=True, slots=True)
class Matched:
    """One envelope that a `notify` rule matched."""

    policy: str
    rule: str
    sender: str
    recipient: str
    message_id: str


def record_notices(matches: Iterable[Matched], now: datetime) -> None:
    """Add the matches to one row for each policy, rule and sender; make rows that are missing.

    One statement writes all rows in sorted order, so two batches can't lock them in opposite
    orders.
    """
    rows: dict[tuple[str, str, str], tuple[Matched, int]] = {}
    for match in matches:
        key = (match.policy, match.rule, match.sender)
        rows[key] = (match, rows[key][1] + 1 if key in rows else 1)
    if not rows:
        return
    places = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s)"] * len(rows))
    parameters = [
        value
        for key, (last, count) in sorted(rows.items(), key=lambda row: row[0])
        for value in (*key, last.recipient, last.message_id, count, now, now)
    ]
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_UP.format(rows=places), parameters)


def mark_seen(ids: Collection[int], *, actor: Actor) -> int:
    """Mark these notices as seen by the officer; return how many were not seen before."""
    with registry_change(actor, moves_epoch=False) as change:
        rows = list(RuleNotice.objects.select_for_update().filter(pk__in=ids, seen_at=None))
        if not rows:
            return 0
        RuleNotice.objects.filter(pk__in=[row.pk for row in rows]).update(
            seen_at=datetime.now(UTC), seen_by_id=actor.user_id
        )
        change.enter(_entry(rows, actor))
    return len(rows)


def _entry(rows: Iterable[RuleNotice], actor: Actor) -> EntryDraft:
    seen = [
        {"policy": row.policy, "rule": row.rule, "sender": row.sender, "count": row.count}
        for row in rows
    ]
    return EntryDraft(
        kind=Kind.NOTIFICATION_SEEN,
        actor=actor.name,
        subject="notifications",
        shared={"seen": seen},
    )
