"""The text of the frames that the hub sends (protocol.md, "Frames")."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from atp.judging.facts import Chain

if TYPE_CHECKING:
    from messaging.models import Envelope

__all__ = [
    "ack_range",
    "delivery",
    "error",
    "gone",
    "joined",
    "receipt",
    "stored_delivery",
    "timestamp",
    "withheld",
]


def receipt(
    message_id: str | None,
    status: str,
    *,
    code: str = "",
    detail: str = "",
    score: int | None = None,
    recipients: int | None = None,
    entry: int | None = None,
    retry_after: float | None = None,
) -> dict[str, Any]:
    """One per envelope, always. `retry_after` is in seconds."""
    frame: dict[str, Any] = {"type": "receipt", "messageId": message_id, "status": status}
    optional = {
        "code": code or None,
        "detail": detail or None,
        "trustScore": score,
        "recipients": recipients,
        "entry": entry,
        "retryAfter": retry_after,
    }
    frame.update((name, value) for name, value in optional.items() if value is not None)
    return frame


def delivery(
    stream: str,
    seq: int,
    content: bytes,
    *,
    entry: int | None,
    accepted_at: str,
    score: int,
    level: str,
    chain: dict[str, Any],
) -> bytes:
    """A delivery frame around `content`, the stored canonical `{"ATP": ...}`, byte for byte.

    "ATP" sorts before every other member, so the frame as a whole is in RFC 8785 form, which the
    SDK reads by its short cut.
    """
    tail = orjson.dumps(
        {
            "acceptedAt": accepted_at,
            "chain": chain,
            "entry": entry,
            "level": level,
            "score": score,
            "seq": seq,
            "stream": stream,
            "type": "delivery",
        },
        option=orjson.OPT_SORT_KEYS,
    )
    return content[:-1] + b"," + tail[1:]


def stored_delivery(envelope: Envelope, *, stream: str, seq: int, entry: int | None) -> bytes:
    """The delivery frame of a row."""
    chain = Chain(envelope.chain_lowest_level, envelope.chain_lowest_score, envelope.chain_depth)
    return delivery(
        stream,
        seq,
        bytes(envelope.content),
        entry=entry,
        accepted_at=timestamp(envelope.judged_at),
        score=envelope.score,
        level=envelope.level,
        chain=chain.to_wire(),
    )


def withheld(stream: str, seq: int, code: str) -> bytes:
    return orjson.dumps({"type": "delivery", "stream": stream, "seq": seq, "withheld": code})


def gone(stream: str, first: int, last: int, code: str) -> bytes:
    return orjson.dumps({"type": "gone", "stream": stream, "from": first, "to": last, "code": code})


def error(code: str, detail: str, *, retry_after: float | None = None) -> str:
    """The last frame of a connection; `retry_after` is in seconds."""
    frame = {"type": "error", "code": code, "detail": detail, "retryAfter": retry_after}
    return orjson.dumps({k: v for k, v in frame.items() if v is not None}).decode()


def ack_range(first: int, last: int) -> str:
    """How an acknowledged range is written in the trail."""
    return str(first) if first == last else f"{first}-{last}"


def joined(frames: Iterable[bytes]) -> str:
    """Several frames as one message: an array, or the frame itself where it is alone."""
    parts = list(frames)
    body = parts[0] if len(parts) == 1 else b"[" + b",".join(parts) + b"]"
    return body.decode()


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with `Z`, to the millisecond."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
