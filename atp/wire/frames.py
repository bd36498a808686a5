"""The frames of the wire, as an agent reads and writes them (protocol.md, "Frames").

No I/O: bytes in, values out, and back. A frame of a type that this version does not know becomes
an `Unknown`, because a newer hub may have more to say; a known one that breaks its own grammar
raises `MalformedFrame`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from atp.errors import MalformedFrame, excerpt
from atp.wire.canonical import parse_noted, serialize

__all__ = [
    "Challenge",
    "Delivery",
    "Failure",
    "Frame",
    "Gone",
    "Notice",
    "Receipt",
    "Stream",
    "Unknown",
    "Welcome",
    "Withheld",
    "parse_message",
    "serialize_ack",
    "serialize_authenticate",
    "serialize_messages",
]

MESSAGE_MAX_BYTES: Final = 2 * 1024 * 1024  # protocol.md "Parsing": a delivery always fits
SEND_MAX_BYTES: Final = 900_000  # the hub reads messages of up to 1 MiB; an array adds little
SEND_MAX_FRAMES: Final = 256  # protocol.md "Frames", the hub's own limit, kept by us as well

Stream = Literal["mail", "answers"]
MAIL: Final = "mail"
ANSWERS: Final = "answers"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Challenge:
    """The hub's first word: who it says it is, and a nonce that serves once."""

    hub: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """The login held; `proof` is the hub's token over the agent's own nonce, "" without one.

    `succession` are the hub's former keys' last words, oldest first: which key came after each.
    """

    session: str
    agent: str
    level: str
    score: int
    window: int
    pending: int
    proof: str = ""
    succession: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an envelope. `None` means that the hub did not say."""

    message_id: str
    status: str
    code: str = ""
    detail: str = ""
    trust_score: int | None = None
    recipients: int | None = None
    entry: int | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An envelope from the inbox, as parsed JSON, beside what the hub says of its sender."""

    stream: Stream
    seq: int
    value: Mapping[str, Any]
    plain: bool
    entry: int | None = None
    accepted_at: str | None = None
    score: int | None = None
    level: str | None = None
    chain: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Withheld:
    """This place in the stream stays empty: the sender lost its standing meanwhile."""

    stream: Stream
    seq: int
    code: str


@dataclass(frozen=True, slots=True)
class Gone:
    """These places in the stream stay empty."""

    stream: Stream
    first: int
    last: int
    code: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Later news on an envelope that this agent sent or received."""

    message_id: str
    status: str
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the hub is about to close the connection."""

    code: str
    detail: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A frame type of a later version."""

    type: str


Frame = Challenge | Welcome | Receipt | Delivery | Withheld | Gone | Notice | Failure | Unknown


def parse_message(data: bytes | str) -> list[Frame]:
    """The frames of one message: a frame, or an array of them. Raises a `MalformedError`."""
    parsed = parse_noted(data, max_bytes=MESSAGE_MAX_BYTES)
    values = parsed.value if isinstance(parsed.value, list) else [parsed.value]
    return [_frame(value, parsed.plain) for value in values]


def serialize_authenticate(proof: str) -> bytes:
    """The frame that answers a challenge."""
    return serialize({"type": "authenticate", "proof": proof}, plain=True)


def serialize_ack(stream: Stream, seq: int, *, refused: str = "") -> bytes:
    """An ack of everything up to `seq`; with `refused` (a code), `seq` itself is turned away."""
    frame: dict[str, Any] = {"type": "ack", "stream": stream, "seq": seq}
    if refused:
        frame["refused"] = refused
    return serialize(frame, plain=True)


def serialize_messages(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Pack frames, in order, into as few messages as the hub's limits allow."""
    batch: list[bytes] = []
    size = 0
    for frame in frames:
        if batch and (size + len(frame) > SEND_MAX_BYTES or len(batch) == SEND_MAX_FRAMES):
            yield _packed(batch)
            batch, size = [], 0
        batch.append(frame)
        size += len(frame) + 1
    if batch:
        yield _packed(batch)


def _packed(batch: list[bytes]) -> bytes:
    return batch[0] if len(batch) == 1 else b"[" + b",".join(batch) + b"]"


def _frame(value: Any, plain: bool) -> Frame:
    if not isinstance(value, dict):
        raise MalformedFrame(f"a frame is an object, not {excerpt(value)}")
    kind = _get(value, "type", str)
    if kind == "delivery":
        return _delivery(value, plain)
    reader = _READERS.get(kind)
    return Unknown(kind) if reader is None else reader(value)


def _delivery(value: Mapping[str, Any], plain: bool) -> Delivery | Withheld:
    stream, seq = _stream(value), _get(value, "seq", int)
    if "withheld" in value:
        return Withheld(stream, seq, _get(value, "withheld", str))
    return Delivery(
        stream=stream,
        seq=seq,
        value={"ATP": _get(value, "ATP", dict)},
        plain=plain,
        entry=_find(value, "entry", int),
        accepted_at=_find(value, "acceptedAt", str),
        score=_find(value, "score", int),
        level=_find(value, "level", str),
        chain=_find(value, "chain", dict) or {},
    )


def _challenge(value: Mapping[str, Any]) -> Challenge:
    return Challenge(hub=_get(value, "hub", str), nonce=_get(value, "nonce", str))


def _welcome(value: Mapping[str, Any]) -> Welcome:
    return Welcome(
        session=_get(value, "session", str),
        agent=_get(value, "agent", str),
        level=_find(value, "level", str) or "",
        score=_find(value, "score", int) or 0,
        window=max(1, _get(value, "window", int)),
        pending=_find(value, "pending", int) or 0,
        proof=_find(value, "proof", str) or "",
        succession=_texts(value, "succession"),
    )


def _receipt(value: Mapping[str, Any]) -> Receipt:
    return Receipt(
        # Without an id the hub could not even read whose envelope it refuses.
        message_id=_find(value, "messageId", str) or "",
        status=_get(value, "status", str),
        code=_find(value, "code", str) or "",
        detail=_find(value, "detail", str) or "",
        trust_score=_find(value, "trustScore", int),
        recipients=_find(value, "recipients", int),
        entry=_find(value, "entry", int),
        retry_after=_seconds(value, "retryAfter"),
    )


def _gone(value: Mapping[str, Any]) -> Gone:
    return Gone(
        stream=_stream(value),
        first=_get(value, "from", int),
        last=_get(value, "to", int),
        code=_find(value, "code", str) or "",
    )


def _notice(value: Mapping[str, Any]) -> Notice:
    return Notice(
        message_id=_get(value, "messageId", str),
        status=_get(value, "status", str),
        code=_find(value, "code", str) or "",
        detail=_find(value, "detail", str) or "",
    )


def _failure(value: Mapping[str, Any]) -> Failure:
    return Failure(
        code=_get(value, "code", str),
        detail=_find(value, "detail", str) or "",
        retry_after=_seconds(value, "retryAfter"),
    )


_READERS: dict[str, Callable[[Mapping[str, Any]], Frame]] = {
    "challenge": _challenge,
    "welcome": _welcome,
    "receipt": _receipt,
    "gone": _gone,
    "notice": _notice,
    "error": _failure,
}


def _find(value: Mapping[str, Any], name: str, kind: type[_T]) -> _T | None:
    item = value.get(name)
    # `type(...) is` and not isinstance: true is not the number 1
    if item is None or type(item) is kind:
        return item
    raise MalformedFrame(f"{name} must be of type {kind.__name__}, not {excerpt(item)}")


def _get(value: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    item = _find(value, name, kind)
    if item is None:
        raise MalformedFrame(f"the frame has no {name}")
    return item


def _texts(value: Mapping[str, Any], name: str) -> tuple[str, ...]:
    items = _find(value, name, list) or []
    if not all(type(item) is str for item in items):
        raise MalformedFrame(f"{name} must be a list of texts")
    return tuple(items)


def _stream(value: Mapping[str, Any]) -> Stream:
    match _get(value, "stream", str):
        case "mail":
            return MAIL
        case "answers":
            return ANSWERS
        case other:
            raise MalformedFrame(f"there is no stream {excerpt(other)}")


def _seconds(value: Mapping[str, Any], name: str) -> float | None:
    item = value.get(name)
    if item is None:
        return None
    if type(item) not in (int, float) or item < 0:
        raise MalformedFrame(f"{name} must be a number of seconds, not {excerpt(item)}")
    return float(item)
