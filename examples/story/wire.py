"""A WebSocket transport that records its traffic and can send forged envelopes.

The agents of the story use it to read the receipt of each envelope. The hostile agent uses it to
forge and to replay. Forged envelopes are well-formed, so the hub refuses them for the forgery.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from atp.agent.identity_file import IdentityFile
from atp.errors import FlowTimeout, SessionClosed
from atp.transports.base import Connection, Login
from atp.transports.websocket import WebSocketTransport
from atp.trust.envelope import new_document, sign_envelope
from atp.trust.keys import PrivateKey
from atp.types import IAgentIdentity, MessageType
from atp.wire.canonical import b64url, parse, serialize
from atp.wire.frames import Delivery, Receipt, parse_message

__all__ = ["Forger", "TappedTransport", "Traffic"]

RECEIPT_SECONDS: Final = 10.0
LIFETIME_SECONDS: Final = 300


@dataclass
class Traffic:
    """The frames sent and received so far, in order."""

    sent: dict[str, bytes] = field(default_factory=dict)  # envelopes by messageId
    types: dict[str, str] = field(default_factory=dict)
    receipts: dict[str, list[Receipt]] = field(default_factory=dict)
    delivered: list[dict[str, Any]] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def note_sent(self, message: bytes) -> None:
        """Note the envelopes in a message to the hub."""
        value = parse(message)
        for frame in value if isinstance(value, list) else [value]:
            if "ATP" in frame:
                message_id = frame["ATP"]["messageId"]
                self.sent[message_id] = serialize(frame)
                self.types[message_id] = frame["ATP"]["payload"]["messageType"]

    def note_received(self, message: bytes) -> None:
        """Note the receipts and deliveries in a message from the hub."""
        for frame in parse_message(message):
            if isinstance(frame, Receipt):
                self.receipts.setdefault(frame.message_id, []).append(frame)
            elif isinstance(frame, Delivery):
                self.delivered.append(dict(frame.value))
        self.moved.set()

    async def receipts_of(self, message_id: str, *, count: int = 1) -> list[Receipt]:
        """Return the first `count` receipts of an envelope.

        Raises `FlowTimeout` if they do not come in `RECEIPT_SECONDS`.
        """
        try:
            async with asyncio.timeout(RECEIPT_SECONDS):
                while len(self.receipts.get(message_id, ())) < count:
                    self.moved.clear()
                    await self.moved.wait()
        except TimeoutError:
            raise FlowTimeout("no receipt came") from None
        return self.receipts[message_id][:count]


class TappedTransport(WebSocketTransport):
    """The WebSocket transport with a record of its `traffic`; `say` sends any bytes."""

    def __init__(self, file: IdentityFile) -> None:
        super().__init__(file.ws_url, hub_id=file.hub_id, hub_key=file.hub_key)
        self.traffic = Traffic()
        self._connection: Connection | None = None

    async def connect(self, login: Login) -> Connection:
        """Connect and log in; record the traffic of the connection."""
        self._connection = _Tapped(await super().connect(login), self.traffic)
        return self._connection

    async def say(self, envelope: bytes) -> None:
        """Send bytes without the client. Raises `SessionClosed` if not connected."""
        if self._connection is None:
            raise SessionClosed("not connected")
        await self._connection.send(envelope)


class _Tapped(Connection):
    def __init__(self, connection: Connection, traffic: Traffic) -> None:
        self._connection, self._traffic = connection, traffic
        self.welcome = connection.welcome

    async def send(self, message: bytes) -> None:
        self._traffic.note_sent(message)
        await self._connection.send(message)

    async def receive(self) -> bytes:
        message = await self._connection.receive()
        self._traffic.note_received(message)
        return message

    async def close(self, *, comes_back: bool = False) -> None:
        await self._connection.close(comes_back=comes_back)


class Forger:
    """A maker of envelopes that a hub must refuse; it has one enrolled key."""

    def __init__(self, file: IdentityFile, *, clock: Any) -> None:
        self._file, self._clock = file, clock

    def with_another_key(self, target: str) -> bytes:
        """Return an envelope with its own name and key id, but signed with another key."""
        envelope = parse(self._signed(self._file.agent, target))
        header, claims, _ = envelope["ATP"]["signature"].split(".")
        forged = PrivateKey.generate().sign(f"{header}.{claims}".encode("ascii"))
        envelope["ATP"]["signature"] = f"{header}.{claims}.{b64url(forged)}"
        return serialize(envelope)

    def in_the_name_of(self, agent: str, target: str) -> bytes:
        """Return an envelope with another agent's name, signed with its own key."""
        return self._signed(agent, target)

    def changed_after_signing(self, target: str) -> bytes:
        """Return an envelope whose content was changed after signing."""
        envelope = parse(self._signed(self._file.agent, target))
        envelope["ATP"]["payload"]["data"] = {"pay": "1000000"}
        return serialize(envelope)

    def with_other_content(self, sent: bytes) -> bytes:
        """Return another valid envelope with the messageId of the envelope `sent`."""
        used = parse(sent)["ATP"]
        target = used["payload"]["targetAgent"]
        return self._signed(self._file.agent, target, message_id=used["messageId"])

    def _signed(self, agent: str, target: str, *, message_id: str | None = None) -> bytes:
        document = new_document(
            identity=IAgentIdentity(agent),
            message_type=MessageType.NOTIFICATION,
            target=target,
            data={"pay": "1"},
            message_id=message_id,
        )
        return sign_envelope(
            document,
            self._file.key,
            hub_id=self._file.hub_id,
            now=self._clock(),
            lifetime_seconds=LIFETIME_SECONDS,
        )
