"""Build delivery frames from stored envelopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atp.judging.facts import Chain
from atp.wire.frames import splice_delivery
from atp.wire.timestamps import format_milliseconds

if TYPE_CHECKING:
    from messaging.models import Envelope

__all__ = ["stored_delivery"]


def stored_delivery(
    envelope: Envelope,
    *,
    stream: str,
    seq: int,
    entry: int | None,
    failures: int = 0,
    redelivered: bool = False,
) -> bytes:
    """Return the delivery frame (JSON bytes) of a stored envelope.

    `entry` is the index of its entry in the trail, `None` where there is no entry. `failures` is
    how many of its handlers began and failed, `redelivered` whether officers have redelivered it.
    Source: docs/protocol.md#frames.
    """
    chain = Chain(
        envelope.chain_lowest_level,
        envelope.chain_lowest_score,
        envelope.chain_depth,
        envelope.chain_sensitivity or envelope.sensitivity,
    )
    return splice_delivery(
        bytes(envelope.content),
        stream=stream,
        seq=seq,
        entry=entry,
        accepted_at=format_milliseconds(envelope.judged_at),
        score=envelope.score,
        level=envelope.level,
        chain=chain.to_wire(),
        attempt=failures + 1,
        redelivered=redelivered,
    )
