"""The hub's frames that take a place in an agent's stream (docs/protocol.md#frames).

They are deliveries, and what comes instead: `Withheld`, `Gone` and `Notice`. All can be imported
from `atp.wire.frames` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from atp.wire.members import WireFrame, find_member, get_member, stream_member
from atp.wire.words import Stream

__all__ = ["Delivery", "Gone", "Notice", "Withheld", "splice_delivery"]


@dataclass(frozen=True, slots=True)
class Delivery(WireFrame):
    """An envelope from the inbox, with what the hub says about its sender.

    `value` is the parsed envelope, `{"ATP": ...}`. `plain` is that of `ParsedJson`. `attempt` is
    1, plus the number of times that a handler of this agent has begun and failed. `redelivered` is
    whether officers sent a refused envelope again, so it is not a repeat.
    """

    stream: Stream
    seq: int
    value: Mapping[str, Any]
    plain: bool
    entry: int | None = None
    accepted_at: str | None = None
    score: int | None = None
    level: str | None = None
    chain: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1
    redelivered: bool = False

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        return {
            "ATP": self.value["ATP"],
            "acceptedAt": self.accepted_at,
            **_attempt_members(self.attempt, redelivered=self.redelivered),
            "chain": self.chain,
            "entry": self.entry,
            "level": self.level,
            "score": self.score,
            "seq": self.seq,
            "stream": self.stream,
            "type": "delivery",
        }

    @classmethod
    def parse(cls, value: Mapping[str, Any], *, plain: bool = False) -> Delivery | Withheld:
        """Read a delivery, or the `Withheld` that is sent in its place."""
        if "withheld" in value:
            return Withheld.parse(value)
        return cls(
            stream=stream_member(value),
            seq=get_member(value, "seq", int),
            value={"ATP": get_member(value, "ATP", dict)},
            plain=plain,
            entry=find_member(value, "entry", int),
            accepted_at=find_member(value, "acceptedAt", str),
            score=find_member(value, "score", int),
            level=find_member(value, "level", str),
            chain=find_member(value, "chain", dict) or {},
            attempt=max(1, find_member(value, "attempt", int) or 1),
            redelivered=find_member(value, "redelivered", bool) or False,
        )


def _attempt_members(attempt: int, *, redelivered: bool) -> dict[str, Any]:
    """Return the members of an envelope that was delivered before; a first delivery has none."""
    again: dict[str, Any] = {"attempt": attempt} if attempt > 1 else {}
    return {**again, "redelivered": True} if redelivered else again


def splice_delivery(
    content: bytes,
    *,
    stream: str,
    seq: int,
    entry: int | None,
    accepted_at: str,
    score: int,
    level: str,
    chain: Mapping[str, Any],
    attempt: int = 1,
    redelivered: bool = False,
) -> bytes:
    """Return the text of a `Delivery` of `content`, the stored canonical `{"ATP": ...}`.

    The envelope is not parsed; its bytes stay as they are. "ATP" sorts before every other member,
    so the whole frame is in RFC 8785 form, which the SDK parses fastest.
    """
    tail = orjson.dumps(
        {
            "acceptedAt": accepted_at,
            **_attempt_members(attempt, redelivered=redelivered),
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


@dataclass(frozen=True, slots=True)
class Withheld(WireFrame):
    """The frame for an envelope that will not come: its sender may no longer be heard."""

    stream: Stream
    seq: int
    code: str

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        place = {"type": "delivery", "stream": self.stream, "seq": self.seq}
        return {**place, "withheld": self.code}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Withheld:
        """Read a withheld delivery; raises `MalformedFrame`."""
        stream, seq = stream_member(value), get_member(value, "seq", int)
        return cls(stream, seq, get_member(value, "withheld", str))


@dataclass(frozen=True, slots=True)
class Gone(WireFrame):
    """The frame for positions `first` to `last` of a stream whose envelopes will not come."""

    stream: Stream
    first: int
    last: int
    code: str

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        place = {"type": "gone", "stream": self.stream, "from": self.first, "to": self.last}
        return {**place, "code": self.code}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Gone:
        """Read a range of sequence numbers that will not come; raises `MalformedFrame`."""
        return cls(
            stream=stream_member(value),
            first=get_member(value, "from", int),
            last=get_member(value, "to", int),
            code=find_member(value, "code", str) or "",
        )


@dataclass(frozen=True, slots=True)
class Notice(WireFrame):
    """A later event of an envelope that this agent sent or received.

    With `stream` and `seq` it has a place in a stream, like a delivery: it is acknowledged, and it
    comes again until then. Without them it is sent once.
    """

    message_id: str
    status: str
    code: str = ""
    detail: str = ""
    stream: Stream | None = None
    seq: int = 0

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        frame = {"type": "notice", "messageId": self.message_id, "status": self.status}
        why = {"code": self.code, "detail": self.detail}
        place = {} if self.stream is None else {"stream": self.stream, "seq": self.seq}
        return {**frame, **{name: text for name, text in why.items() if text}, **place}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Notice:
        """Read a notice; raises `MalformedFrame`."""
        has_place = "stream" in value
        return cls(
            message_id=get_member(value, "messageId", str),
            status=get_member(value, "status", str),
            code=find_member(value, "code", str) or "",
            detail=find_member(value, "detail", str) or "",
            stream=stream_member(value) if has_place else None,
            seq=get_member(value, "seq", int) if has_place else 0,
        )
