"""The delivery frames of stored envelopes, and the text of an acknowledged range."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atp.judging.judgement import Chain
from atp.wire.frames import splice_delivery
from atp.wire.timestamps import format_milliseconds

if TYPE_CHECKING:
    from messaging.models import Envelope

__all__ = ["ack_range", "stored_delivery"]


def stored_delivery(envelope: Envelope, *, stream: str, seq: int, entry: int | None) -> bytes:
    """The delivery frame of a row."""
    chain = Chain(envelope.chain_lowest_level, envelope.chain_lowest_score, envelope.chain_depth)
    return splice_delivery(
        bytes(envelope.content),
        stream=stream,
        seq=seq,
        entry=entry,
        accepted_at=format_milliseconds(envelope.judged_at),
        score=envelope.score,
        level=envelope.level,
        chain=chain.to_wire(),
    )


def ack_range(first: int, last: int) -> str:
    """The text of an acknowledged range in the trail: `7`, or `7-9`."""
    return str(first) if first == last else f"{first}-{last}"
