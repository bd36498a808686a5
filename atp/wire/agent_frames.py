"""The frames that an agent sends (docs/protocol.md#frames), and how a hub reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atp.errors import MalformedFrame, SessionAuthentication
from atp.wire.canonical import parse_noted
from atp.wire.json_values import is_whole
from atp.wire.members import WireFrame
from atp.wire.words import STREAMS, Stream

__all__ = ["Ack", "Authenticate", "Submission", "parse_agent_message"]

# The hub stores this code in a column of 40 characters.
_REFUSED = re.compile(r"(?=.{1,40}\Z)[a-z_]+(\.[a-z_]+)*")


@dataclass(frozen=True, slots=True)
class Authenticate(WireFrame):
    """The answer to a challenge. `proof` is an `atp-auth+jwt`, `client` the client's own name."""

    proof: str
    client: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        client = {"client": self.client} if self.client else {}
        return {**client, "proof": self.proof, "type": "authenticate"}

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
        return cls(proof, client if isinstance(client, str) and client.isprintable() else "")


@dataclass(frozen=True, slots=True)
class Ack(WireFrame):
    """An acknowledgement of everything up to `seq`. With `refused` (a code), `seq` is refused."""

    stream: Stream
    seq: int
    refused: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        refused = {"refused": self.refused} if self.refused else {}
        return {**refused, "seq": self.seq, "stream": self.stream, "type": "ack"}

    @classmethod
    def parse(cls, value: object) -> Ack:
        """Read a frame of a logged-in agent other than an envelope; raises `MalformedFrame`."""
        if not isinstance(value, dict) or value.get("type") != "ack":
            raise MalformedFrame("an agent may send envelopes and acks only")
        stream, seq, refused = value.get("stream"), value.get("seq"), value.get("refused", "")
        if stream not in STREAMS or not is_whole(seq, least=1):
            raise MalformedFrame(
                "an ack needs stream (mail or answers) and seq (a whole number from 1)"
            )
        if not isinstance(refused, str) or (refused and _REFUSED.fullmatch(refused) is None):
            raise MalformedFrame("refused must be a code such as handler.failed")
        return cls(stream, seq, refused)


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


def parse_agent_message(
    data: bytes | str, *, max_bytes: int, max_frames: int | None = None
) -> list[Submission | Ack]:
    """Read the frames of a logged-in agent's message: one frame, or an array of frames.

    Raises a `MalformedError` if the message has more than `max_bytes` or `max_frames`, or if one
    of its values is neither an envelope nor an ack.
    """
    parsed = parse_noted(data, max_bytes=max_bytes)
    values = parsed.value if isinstance(parsed.value, list) else [parsed.value]
    if max_frames is not None and len(values) > max_frames:
        raise MalformedFrame(f"at most {max_frames} frames in one message")
    return [
        Submission(value, parsed.plain)
        if isinstance(value, dict) and "ATP" in value
        else Ack.parse(value)
        for value in values
    ]
