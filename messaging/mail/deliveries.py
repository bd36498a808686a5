"""The delivery frames of stored envelopes, and how acknowledged ranges and times are written."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from atp.judging.judgement import Chain
from atp.wire.frames import splice_delivery

if TYPE_CHECKING:
    from messaging.models import Envelope

__all__ = ["ack_range", "stored_delivery", "timestamp"]


def stored_delivery(envelope: Envelope, *, stream: str, seq: int, entry: int | None) -> bytes:
    """The delivery frame of a row."""
    chain = Chain(envelope.chain_lowest_level, envelope.chain_lowest_score, envelope.chain_depth)
    return splice_delivery(
        bytes(envelope.content),
        stream=stream,
        seq=seq,
        entry=entry,
        accepted_at=timestamp(envelope.judged_at),
        score=envelope.score,
        level=envelope.level,
        chain=chain.to_wire(),
    )


def ack_range(first: int, last: int) -> str:
    """How an acknowledged range is written in the trail."""
    return str(first) if first == last else f"{first}-{last}"


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with `Z`, to the millisecond."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
