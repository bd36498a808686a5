"""Two envelopes of one sender under one messageId: which was first, and whether they say the same.

An agent that signs its message anew, because it has lost the bytes that it signed before, does no
wrong. The second envelope is refused all the same, and its receipt has the state of the first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from atp.errors import ATPError, ReplayConflict
from atp.judging.judgement import Verdict
from atp.trust.content import content_mark
from atp.trust.envelope import Envelope, parse_envelope
from atp.wire.frames import first_members
from messaging.judging.item import Parsed, Refused, Stage, unusable
from messaging.models import Envelope as EnvelopeRow
from registry.trail.querysets import entries_of_messages

SIGNED_ANEW = "this message was sent before, signed anew; `first` has the state of the first one"
OTHER_CONTENT = "another envelope with this messageId was sent before"
# Two signings of one message have nearly the same size. So the contents that are read for a batch
# have hardly more bytes than the batch itself.
SIZES_DIFFER_BYTES = 1024

Key = tuple[str, str]  # sender and messageId


def load_first_contents(
    stages: Iterable[Stage], rows: Mapping[Key, EnvelopeRow]
) -> dict[Key, Envelope]:
    """Return the stored envelopes that envelopes of the batch may repeat, signed anew."""
    wanted = {
        rows[one.key].pk
        for one in stages
        if isinstance(one, Parsed) and one.key in rows and _may_be_anew(one, rows[one.key])
    }
    if not wanted:
        return {}
    found = EnvelopeRow.objects.filter(pk__in=wanted)
    contents = found.values_list("sender_id", "message_id", "content")
    return {
        (sender, message_id): parse_envelope(bytes(content))
        for sender, message_id, content in contents
        if content  # large denied ones are not kept
    }


def conflict(one: Parsed, first: Envelope | None) -> Refused:
    """Refuse an envelope, because `first` of the same agent has its messageId.

    It is a violation of the sender unless both say the same. `first` is `None` if its content is
    not at hand; then it does not say the same.
    """
    if first is not None and _says_the_same(one.envelope, first):
        verdict = Verdict("invalid", ReplayConflict.code, SIGNED_ANEW)
    else:
        verdict = unusable(ReplayConflict(OTHER_CONTENT))
    return Refused(one.frame, one.envelope, verdict)


def first_states(stages: Iterable[Stage]) -> dict[Key, dict[str, Any]]:
    """Return the member `first` for the receipt of each conflict; call it after the commit."""
    keys = {
        one.key
        for one in stages
        if isinstance(one, Refused) and one.verdict.code == ReplayConflict.code
    }
    return _states(keys) if keys else {}


def _states(keys: Collection[Key]) -> dict[Key, dict[str, Any]]:
    ids = {message_id for _, message_id in keys}
    entries = entries_of_messages(ids)
    rows = EnvelopeRow.objects.filter(message_id__in=ids)
    statuses = rows.values_list("sender_id", "message_id", "status")
    return {
        (sender, message_id): first_members(status, entries.get((sender, message_id)))
        for sender, message_id, status in statuses
        if (sender, message_id) in keys
    }


def _may_be_anew(one: Parsed, row: EnvelopeRow) -> bool:
    difference = abs(row.size - len(one.envelope.canonical))
    return row.digest != one.envelope.digest and difference <= SIZES_DIFFER_BYTES


def _says_the_same(one: Envelope, first: Envelope) -> bool:
    try:
        return content_mark(one.document) == content_mark(first.document)
    except ATPError:  # a document without a canonical form says nothing
        return False
