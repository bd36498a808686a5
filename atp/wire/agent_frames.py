"""The frames that an agent sends (docs/protocol.md#frames), and how a hub reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from atp.errors import MalformedFrame, SessionAuthentication
from atp.wire.canonical import parse_noted
from atp.wire.json_values import is_whole
from atp.wire.members import WireFrame
from atp.wire.words import CODE_PATTERN, STREAMS, Stream

__all__ = [
    "Ack",
    "AgentFrame",
    "Authenticate",
    "CancelRequest",
    "Submission",
    "parse_agent_message",
]

MOST_FEATURES: Final = 32  # named in one login
MOST_PLACES: Final = 2048  # in one list of an ack (docs/protocol.md#acks)

_REFUSED = re.compile(CODE_PATTERN)  # the hub stores it in a column of 40 characters
_MESSAGE_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Authenticate(WireFrame):
    """The answer to a challenge. `proof` is an `atp-auth+jwt`, `client` the client's own name.

    `features` are those of the challenge that the agent uses (docs/protocol.md#features). With
    `takeover` false, the login does not end a live session of the agent: it gets a session that
    only sends. With `send_only` it gets such a session in any case. `resumes` is the id of a
    session that the same process had before, or "".
    """

    proof: str
    client: str = ""
    features: tuple[str, ...] = ()
    takeover: bool = True
    resumes: str = ""
    send_only: bool = False

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        frame: dict[str, Any] = {"client": self.client} if self.client else {}
        if self.features:
            frame["features"] = self.features
        frame["proof"] = self.proof
        if self.resumes:
            frame["resumes"] = self.resumes
        if self.send_only:
            frame["sendOnly"] = True
        if not self.takeover:
            frame["takeover"] = False
        return {**frame, "type": "authenticate"}

    @classmethod
    def parse(cls, value: object) -> Authenticate:
        """Read the first frame of an agent; raises `SessionAuthentication` for any other frame.

        A `client` that is not printable text is read as "", because logs and pages show it.
        """
        if not isinstance(value, dict) or value.get("type") != "authenticate":
            raise SessionAuthentication("the first frame must be authenticate")
        proof, client = value.get("proof"), value.get("client")
        if not isinstance(proof, str):
            raise SessionAuthentication("authenticate needs a proof")
        takeover, resumes = value.get("takeover", True), value.get("resumes", "")
        send_only = value.get("sendOnly", False)
        if not isinstance(takeover, bool) or not isinstance(send_only, bool):
            raise SessionAuthentication("takeover and sendOnly must be true or false")
        if not isinstance(resumes, str):
            raise SessionAuthentication("resumes must be the id of a session")
        return cls(
            proof,
            client if isinstance(client, str) and client.isprintable() else "",
            _features(value.get("features", [])),
            takeover,
            resumes,
            send_only,
        )


def _features(value: object) -> tuple[str, ...]:
    """Read `features`: a short list of strings; names that the hub does not know are kept."""
    if not isinstance(value, list) or len(value) > MOST_FEATURES:
        raise SessionAuthentication(f"features must be a list of at most {MOST_FEATURES} strings")
    if not all(isinstance(name, str) for name in value):
        raise SessionAuthentication("features must be a list of strings")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class Ack(WireFrame):
    """What the agent took from a stream, and with the feature `done`, what it has handled.

    `seq` is cumulative. Without the feature `done`, everything up to `seq` is handled; with
    `refused` (a code), the envelope at `seq` itself is refused.

    With the feature `done`, the agent has taken everything up to `seq`, and the other members tell
    about single places (docs/protocol.md#acks): `done` are ranges (first, last) of places that are
    handled; `begun` are places whose handler has begun; `retry` are pairs (place, how many of its
    handlers have failed so far); `refusals` are pairs (place, code).
    """

    stream: Stream
    seq: int
    refused: str = ""
    done: tuple[tuple[int, int], ...] = ()
    begun: tuple[int, ...] = ()
    retry: tuple[tuple[int, int], ...] = ()
    refusals: tuple[tuple[int, str], ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        told = {"begun": self.begun, "done": self.done, "retry": self.retry}
        frame: dict[str, Any] = {name: places for name, places in told.items() if places}
        if refused := self.refused or self.refusals:
            frame["refused"] = refused
        return {**frame, "seq": self.seq, "stream": self.stream, "type": "ack"}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Ack:
        """Read an ack; raises `MalformedFrame`."""
        stream, seq = value.get("stream"), value.get("seq")
        if stream not in STREAMS or not is_whole(seq, least=1):
            raise MalformedFrame(
                "an ack needs stream (mail or answers) and seq (a whole number from 1)"
            )
        refused = value.get("refused", "")
        one_code = not isinstance(refused, list)
        return cls(
            stream,
            seq,
            _refusal_code(refused, empty=True) if one_code else "",
            done=tuple(map(_range, _list(value.get("done", []), "done"))),
            begun=tuple(_place(item, "begun") for item in _list(value.get("begun", []), "begun")),
            retry=tuple(_numbers(item, "retry") for item in _list(value.get("retry", []), "retry")),
            refusals=() if one_code else tuple(map(_refusal, _list(refused, "refused"))),
        )

    @property
    def tells_places(self) -> bool:
        """Whether the ack tells about single places, as only the feature `done` allows."""
        return bool(self.done or self.begun or self.retry or self.refusals)


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MOST_PLACES:
        raise MalformedFrame(f"{name} must be a list of at most {MOST_PLACES} items")
    return value


def _place(item: object, name: str) -> int:
    if not is_whole(item, least=1):
        raise MalformedFrame(f"a place in {name} must be a whole number from 1")
    return item


def _pair(item: object, name: str) -> tuple[Any, Any]:
    if not isinstance(item, list) or len(item) != 2:
        raise MalformedFrame(f"{name} must be a list of pairs")
    return item[0], item[1]


def _numbers(item: object, name: str) -> tuple[int, int]:
    first, second = _pair(item, name)
    return _place(first, name), _place(second, name)


def _range(item: object) -> tuple[int, int]:
    first, last = _numbers(item, "done")
    if last < first:
        raise MalformedFrame("a range in done must not end before it begins")
    return first, last


def _refusal(item: object) -> tuple[int, str]:
    place, code = _pair(item, "refused")
    return _place(place, "refused"), _refusal_code(code)


def _refusal_code(value: object, *, empty: bool = False) -> str:
    if value == "" and empty:
        return ""
    if not isinstance(value, str) or _REFUSED.fullmatch(value) is None:
        raise MalformedFrame("refused must be a code such as handler.failed")
    return value


@dataclass(frozen=True, slots=True)
class CancelRequest(WireFrame):
    """The agent no longer waits for the answer to its request `message_id` (feature `cancel`)."""

    message_id: str

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        return {"messageId": self.message_id, "type": "cancel"}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> CancelRequest:
        """Read the cancellation of a request; raises `MalformedFrame`."""
        message_id = value.get("messageId")
        if not isinstance(message_id, str) or _MESSAGE_ID.fullmatch(message_id) is None:
            raise MalformedFrame("cancel needs the messageId of a request")
        return cls(message_id)


@dataclass(frozen=True, slots=True)
class Submission(WireFrame):
    """An envelope that an agent sends, not checked yet.

    `value` is the parsed `{"ATP": ...}`. `plain` is what `ParsedJson` says of it.
    """

    value: Mapping[str, Any]
    plain: bool = False

    @property
    def message_id(self) -> str:
        """The id to name in the receipt; "" where the envelope has none that can be read."""
        document = self.value.get("ATP")
        found = document.get("messageId") if isinstance(document, dict) else None
        return found if isinstance(found, str) else ""

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        return dict(self.value)


AgentFrame = Submission | Ack | CancelRequest


def parse_agent_message(
    data: bytes | str, *, max_bytes: int, max_frames: int | None = None
) -> list[AgentFrame]:
    """Read the frames of a logged-in agent's message: one frame, or an array of frames.

    Raises a `MalformedError` if the message has more than `max_bytes` or `max_frames`, or if one
    of its values is none of `AgentFrame`.
    """
    parsed = parse_noted(data, max_bytes=max_bytes)
    values = parsed.value if isinstance(parsed.value, list) else [parsed.value]
    if max_frames is not None and len(values) > max_frames:
        raise MalformedFrame(f"at most {max_frames} frames in one message")
    return [_agent_frame(value, plain=parsed.plain) for value in values]


def _agent_frame(value: object, *, plain: bool) -> AgentFrame:
    if not isinstance(value, dict):
        raise MalformedFrame("a frame must be an object")
    if "ATP" in value:
        return Submission(value, plain)
    match value.get("type"):
        case "ack":
            return Ack.parse(value)
        case "cancel":
            return CancelRequest.parse(value)
    raise MalformedFrame("an agent may send envelopes, acks and cancel only")
