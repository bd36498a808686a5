"""The frames of the wire, in both directions (docs/protocol.md#frames).

Each frame is a frozen dataclass. `to_wire` gives its members as JSON values, `to_bytes` its text,
and `parse` reads it. The hub, the SDK and the in-memory transport use the same classes. What an
agent sends is in `agent_frames`, what has a place in a stream in `stream_frames`; both can be
imported from here too.

There is no I/O here. A hub's frame of a type that this version does not know is read as an
`Unknown`, because a newer hub may send more types. A frame of a known type that breaks its grammar
raises `MalformedFrame`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from atp.errors import MalformedFrame, excerpt
from atp.wire.agent_frames import Ack, Authenticate, CancelRequest
from atp.wire.canonical import parse_noted
from atp.wire.members import (
    WireFrame,
    find_member,
    get_member,
    seconds_member,
    texts_member,
)
from atp.wire.stream_frames import Delivery, Gone, Notice, Withheld, splice_delivery

__all__ = [
    "Ack",
    "Authenticate",
    "CancelRequest",
    "Cancelled",
    "Challenge",
    "Delivery",
    "Failure",
    "Frame",
    "Gone",
    "Notice",
    "Receipt",
    "Unknown",
    "Welcome",
    "Withheld",
    "first_members",
    "join_frames",
    "parse_message",
    "receipt_members",
    "serialize_messages",
    "splice_delivery",
]

SUBPROTOCOL: Final = "atp.v1"  # docs/protocol.md#connecting
MESSAGE_MAX_BYTES: Final = 2 * 1024 * 1024  # docs/protocol.md#frames: a delivery always fits
SEND_MAX_BYTES: Final = 900_000  # the hub reads messages of up to 1 MiB; an array adds little
SEND_MAX_FRAMES: Final = 256  # docs/protocol.md#frames: the hub's limit


@dataclass(frozen=True, slots=True)
class Challenge(WireFrame):
    """The hub's first frame: its id, a nonce for one login, and its clock (RFC 3339).

    `features` are the additions to the protocol that the hub knows (docs/protocol.md#features).
    """

    hub: str
    nonce: str
    time: str = ""
    features: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        frame = {"type": "challenge", "hub": self.hub, "nonce": self.nonce, "time": self.time}
        return {**frame, "features": self.features} if self.features else frame

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Challenge:
        """Read a challenge; raises `MalformedFrame`."""
        hub, nonce = get_member(value, "hub", str), get_member(value, "nonce", str)
        time = value.get("time")  # for people only, so its grammar is not checked
        features = texts_member(value, "features")
        return cls(hub, nonce, time if isinstance(time, str) else "", features)


@dataclass(frozen=True, slots=True)
class Welcome(WireFrame):
    """The hub's answer to a valid login.

    `window` is how many envelopes may be without a receipt, `pending` how many deliveries wait in
    the inbox. `proof` is the hub's token over the agent's nonce, or "". `succession` holds the
    tokens in which each former key of the hub names the next one, oldest first. `send_only` is
    whether the session sends and takes no mail, because another session of the agent does.
    `features` are those that the agent chose at this login; the login knows them, the frame does
    not have them.
    """

    session: str
    agent: str
    level: str
    score: int
    window: int
    pending: int
    proof: str = ""
    succession: tuple[str, ...] = ()
    send_only: bool = False
    features: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        frame: dict[str, Any] = {
            "type": "welcome",
            "session": self.session,
            "agent": self.agent,
            "level": self.level,
            "score": self.score,
            "window": self.window,
            "pending": self.pending,
            "proof": self.proof,
        }
        if self.succession:
            frame["succession"] = self.succession
        return {**frame, "sendOnly": True} if self.send_only else frame

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Welcome:
        """Read a welcome; raises `MalformedFrame`."""
        return cls(
            session=get_member(value, "session", str),
            agent=get_member(value, "agent", str),
            level=find_member(value, "level", str) or "",
            score=find_member(value, "score", int) or 0,
            window=max(1, get_member(value, "window", int)),
            pending=find_member(value, "pending", int) or 0,
            proof=find_member(value, "proof", str) or "",
            succession=texts_member(value, "succession"),
            send_only=find_member(value, "sendOnly", bool) or False,
        )


@dataclass(frozen=True, slots=True)
class Receipt(WireFrame):
    """The hub's answer to one envelope. `None` means that the hub did not say.

    `message_id` is "" (null on the wire) if the hub could not read it. `retry_after` is in
    seconds. `connected` is whether the recipient of an accepted request was connected then. With
    the code `replay.conflict`, `first_status` and `first_entry` are those of the envelope that used
    the `messageId` first.
    """

    message_id: str
    status: str
    code: str = ""
    detail: str = ""
    trust_score: int | None = None
    recipients: int | None = None
    entry: int | None = None
    retry_after: float | None = None
    connected: bool | None = None
    first_status: str = ""
    first_entry: int | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        return receipt_members(
            self.message_id,
            self.status,
            code=self.code,
            detail=self.detail,
            trust_score=self.trust_score,
            recipients=self.recipients,
            entry=self.entry,
            retry_after=self.retry_after,
            connected=self.connected,
            first=first_members(self.first_status, self.first_entry),
        )

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Receipt:
        """Read a receipt; raises `MalformedFrame`."""
        first = find_member(value, "first", dict) or {}
        return cls(
            message_id=find_member(value, "messageId", str) or "",
            status=get_member(value, "status", str),
            code=find_member(value, "code", str) or "",
            detail=find_member(value, "detail", str) or "",
            trust_score=find_member(value, "trustScore", int),
            recipients=find_member(value, "recipients", int),
            entry=find_member(value, "entry", int),
            retry_after=seconds_member(value, "retryAfter"),
            connected=find_member(value, "connected", bool),
            first_status=find_member(first, "status", str) or "",
            first_entry=find_member(first, "entry", int),
        )


def receipt_members(
    message_id: str | None,
    status: str,
    *,
    code: str = "",
    detail: str = "",
    trust_score: int | None = None,
    recipients: int | None = None,
    entry: int | None = None,
    retry_after: float | None = None,
    connected: bool | None = None,
    first: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the members of a `Receipt`; `first` is that of `first_members`.

    The hub writes one for each envelope and calls this directly: to make the dataclass first takes
    twice the time.
    """
    frame: dict[str, Any] = {"type": "receipt", "messageId": message_id or None, "status": status}
    if code:
        frame["code"] = code
    if detail:
        frame["detail"] = detail
    if trust_score is not None:
        frame["trustScore"] = trust_score
    if recipients is not None:
        frame["recipients"] = recipients
    if entry is not None:
        frame["entry"] = entry
    if retry_after is not None:
        frame["retryAfter"] = retry_after
    if connected is not None:
        frame["connected"] = connected
    if first:
        frame["first"] = first
    return frame


def first_members(status: str, entry: int | None) -> dict[str, Any]:
    """Return the member `first` of a receipt; empty without a status."""
    members = {"status": status} if status else {}
    return members if entry is None or not status else {**members, "entry": entry}


@dataclass(frozen=True, slots=True)
class Failure(WireFrame):
    """The frame `error`, the last one of a connection. `retry_after` is in seconds."""

    code: str
    detail: str = ""
    retry_after: float | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        frame = {"type": "error", "code": self.code, "detail": self.detail}
        return frame if self.retry_after is None else {**frame, "retryAfter": self.retry_after}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Failure:
        """Read an error frame; raises `MalformedFrame`."""
        return cls(
            code=get_member(value, "code", str),
            detail=find_member(value, "detail", str) or "",
            retry_after=seconds_member(value, "retryAfter"),
        )


@dataclass(frozen=True, slots=True)
class Cancelled(WireFrame):
    """The news that `sender` no longer waits for the answer to its request `message_id`."""

    message_id: str
    sender: str

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        return {"type": "cancel", "messageId": self.message_id, "sender": self.sender}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Cancelled:
        """Read the cancellation of a request; raises `MalformedFrame`."""
        return cls(get_member(value, "messageId", str), get_member(value, "sender", str))


@dataclass(frozen=True, slots=True)
class Unknown(WireFrame):
    """A frame of a type that this version does not know."""

    type: str

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        return {"type": self.type}


Frame = (
    Challenge
    | Welcome
    | Receipt
    | Delivery
    | Withheld
    | Gone
    | Notice
    | Cancelled
    | Failure
    | Unknown
)

HUB_FRAMES: Final[Mapping[str, Callable[[Mapping[str, Any]], Frame]]] = {
    "challenge": Challenge.parse,
    "welcome": Welcome.parse,
    "receipt": Receipt.parse,
    "delivery": Delivery.parse,
    "gone": Gone.parse,
    "notice": Notice.parse,
    "cancel": Cancelled.parse,
    "error": Failure.parse,
}


# --- Messages ------------------------------------------------------------------------------------


def parse_message(data: bytes | str) -> list[Frame]:
    """Return the frames of a hub's message, which is one frame or an array of them.

    Raises a `MalformedError`.
    """
    parsed = parse_noted(data, max_bytes=MESSAGE_MAX_BYTES)
    values = parsed.value if isinstance(parsed.value, list) else [parsed.value]
    return [_parse_frame(value, parsed.plain) for value in values]


def serialize_messages(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Pack an agent's frames, in order, into as few messages as the hub's limits allow."""
    batch: list[bytes] = []
    size = 0
    for frame in frames:
        if batch and (size + len(frame) > SEND_MAX_BYTES or len(batch) == SEND_MAX_FRAMES):
            yield join_frames(batch)
            batch, size = [], 0
        batch.append(frame)
        size += len(frame) + 1
    if batch:
        yield join_frames(batch)


def join_frames(frames: Iterable[bytes]) -> bytes:
    """Return the text of a message: the frame itself if it is the only one, else an array."""
    parts = list(frames)
    return parts[0] if len(parts) == 1 else b"[" + b",".join(parts) + b"]"


def _parse_frame(value: Any, plain: bool) -> Frame:
    if not isinstance(value, dict):
        raise MalformedFrame(f"a frame must be an object, not {excerpt(value)}")
    kind = get_member(value, "type", str)
    if kind == "delivery":
        return Delivery.parse(value, plain=plain)
    parse = HUB_FRAMES.get(kind)
    return Unknown(kind) if parse is None else parse(value)
