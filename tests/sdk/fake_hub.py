"""A small hub on a real socket, for tests of the SDK alone.

It logs agents in, verifies and stores envelopes, and delivers them by stream and sequence number.
A test can make it misbehave as after crashes and network faults. It has no registry, no policy and
no trail: tests of the real hub's decisions use the real hub.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from atp import ATPError, PrivateKey, PublicKey, envelope_from_value, verify_envelope
from atp.trust import tokens
from atp.trust.envelope import Envelope
from atp.trust.signing import read_header
from atp.types import BROADCAST_TARGET, MessageType
from atp.wire.canonical import parse
from atp.wire.timestamps import format_timestamp

WINDOW = 256
SCORE = 80


@dataclass
class Account:
    """The state of an agent at the hub: its key, its two streams and their acks."""

    key: PublicKey
    level: str = "verified"
    streams: dict[str, list[tuple[Envelope, float]]] = field(
        default_factory=lambda: {"mail": [], "answers": []}
    )
    acked: Counter[str] = field(default_factory=Counter)
    pushed: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[str, int, str]] = field(default_factory=list)
    socket: ServerConnection | None = None


class FakeHub:
    """A hub that can misbehave. `script` may return a receipt for an envelope, or `None`."""

    def __init__(self) -> None:
        self.id = f"hub-{secrets.token_hex(8)}"
        self.key = PrivateKey.generate()
        self.accounts: dict[str, Account] = {}
        self.accepted: dict[str, Envelope] = {}
        self.logins: Counter[str] = Counter()
        self.refused_logins: Counter[str] = Counter()
        self.received: Counter[str] = Counter()  # envelopes by message id, repeats included
        self.bytes_of: dict[str, bytes] = {}
        self.script: Callable[[Envelope], dict[str, Any] | None] = lambda envelope: None
        self.lose_receipts = 0  # how many sockets to cut after acceptance, before the receipt
        self.deliver_twice = False
        self.keep_deliveries = False
        self.refusing: dict[str, ATPError] = {}  # by agent: the error of its login
        self.refused_at: list[float] = []  # monotonic seconds
        self.faults: list[str] = []  # acts of agents that break the protocol
        self._server: Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/ws/agents/"

    def enrol(self, agent: str, *, level: str = "verified") -> PrivateKey:
        key = PrivateKey.generate()
        self.accounts[agent] = Account(key.public, level)
        return key

    async def start(self) -> None:
        self._server = await serve(
            self._converse,
            "127.0.0.1",
            self._port,
            subprotocols=[Subprotocol("atp.v1")],
            compression=None,
            max_size=1024 * 1024,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def kill(self) -> None:
        """Stop as after SIGKILL: sockets break without a close frame, stored data stays."""
        assert self._server is not None
        for account in self.accounts.values():
            self.cut(account)
        self._server.close(close_connections=False)
        await self._server.wait_closed()

    def cut(self, account: Account) -> None:
        if account.socket is not None:
            account.socket.transport.abort()
            account.socket = None

    async def end(self, agent: str, code: str) -> None:
        """Close an agent's connection with an error frame."""
        socket = self.accounts[agent].socket
        assert socket is not None
        await socket.send(json.dumps({"type": "error", "code": code, "detail": "as told"}))
        await socket.close()

    async def tell(self, agent: str, frame: dict[str, Any]) -> None:
        socket = self.accounts[agent].socket
        assert socket is not None
        await socket.send(json.dumps(frame))

    async def _converse(self, socket: ServerConnection) -> None:
        try:
            agent = await self._log_in(socket)
            await self._push(agent)
            async for message in socket:
                value = parse(message, max_bytes=1024 * 1024)
                frames = value if isinstance(value, list) else [value]
                receipts = [r for frame in frames if (r := await self._frame(agent, frame))]
                if receipts:
                    await socket.send(json.dumps(receipts))
        except (ConnectionClosed, _CutError):
            return
        except ATPError as problem:
            frame: dict[str, Any] = {"type": "error", "code": problem.code}
            frame |= {"detail": problem.detail}
            if problem.retry_after is not None:
                frame["retryAfter"] = problem.retry_after
            await socket.send(json.dumps(frame))
        finally:
            for account in self.accounts.values():
                if account.socket is socket:
                    account.socket = None

    async def _log_in(self, socket: ServerConnection) -> str:
        nonce = secrets.token_urlsafe(16)
        challenge = {"type": "challenge", "hub": self.id, "nonce": nonce, "time": "now"}
        await socket.send(json.dumps(challenge))
        proof = json.loads(await socket.recv())["proof"]
        kid = read_header(proof).kid
        agent, account = next((a, c) for a, c in self.accounts.items() if c.key.kid == kid)
        now = time.time()
        claims = tokens.verify(
            tokens.Kind.AUTH, proof, account.key, now=now, audience=self.id, issuer=agent
        )
        if (claims["nonce"], claims["htu"]) != (nonce, self.url):
            self.faults.append(f"{agent} proved itself for another login")
        if agent in self.refusing:
            self.refused_logins[agent] += 1
            self.refused_at.append(time.monotonic())
            raise self.refusing[agent]
        session = str(uuid.uuid4())
        answer = {"iss": self.id, "aud": agent, "nonce": claims["cnonce"], "session": session}
        welcome: dict[str, Any] = {"type": "welcome", "session": session, "agent": agent}
        welcome |= {"level": account.level, "score": SCORE, "window": WINDOW, "pending": 0}
        welcome["proof"] = tokens.issue(tokens.Kind.WELCOME, answer, self.key, now=int(now))
        if account.socket is not None:
            await self.end(agent, "session.superseded")
        account.socket = socket
        account.pushed = account.acked.copy()
        self.logins[agent] += 1
        await socket.send(json.dumps(welcome))
        return agent

    async def _frame(self, agent: str, frame: dict[str, Any]) -> dict[str, Any] | None:
        if frame.get("type") == "ack":
            account = self.accounts[agent]
            stream, seq = frame["stream"], frame["seq"]
            if seq > account.pushed[stream]:
                self.faults.append(f"{agent} acknowledged {stream} {seq} before it was delivered")
            account.acked[stream] = max(account.acked[stream], seq)
            if "refused" in frame:
                account.refused.append((stream, seq, frame["refused"]))
            await self._push(agent)
            return None
        return await self._envelope(agent, frame)

    async def _envelope(self, agent: str, frame: dict[str, Any]) -> dict[str, Any]:
        envelope = envelope_from_value(frame)
        self.received[envelope.message_id] += 1
        first = self.bytes_of.setdefault(envelope.message_id, envelope.canonical)
        if first != envelope.canonical:
            self.faults.append(f"{agent} sent {envelope.message_id} again with other bytes")
        told = {"type": "receipt", "messageId": envelope.message_id}
        if envelope.message_id not in self.accepted:
            scripted = self.script(envelope)
            if scripted is not None:
                return {**told, **scripted}
            account = self.accounts[agent]
            verify_envelope(envelope, account.key, hub_id=self.id, now=time.time())
            recipients = self._recipients(envelope)
            if not recipients and envelope.target != BROADCAST_TARGET:
                return {**told, "status": "denied", "code": "recipient.unavailable"}
            self.accepted[envelope.message_id] = envelope
            for recipient in recipients:
                answer = envelope.message_type is MessageType.RESPONSE
                stream = self.accounts[recipient].streams["answers" if answer else "mail"]
                stream.append((envelope, time.time()))
                await self._push(recipient)
        if self.lose_receipts:
            self.lose_receipts -= 1
            self.cut(self.accounts[agent])
            raise _CutError
        entry = list(self.accepted).index(envelope.message_id)
        return {**told, "status": "accepted", "trustScore": SCORE, "recipients": 1, "entry": entry}

    def _recipients(self, envelope: Envelope) -> list[str]:
        if envelope.target != BROADCAST_TARGET:
            return [envelope.target] if envelope.target in self.accounts else []
        online = [agent for agent, account in self.accounts.items() if account.socket]
        return [agent for agent in online if agent != envelope.sender]

    async def _push(self, agent: str) -> None:
        account = self.accounts[agent]
        if account.socket is None or self.keep_deliveries:
            return
        frames = []
        for name, stream in account.streams.items():
            while (
                account.pushed[name] < len(stream)
                and account.pushed[name] - account.acked[name] < WINDOW
            ):
                account.pushed[name] += 1
                frames.append(self.delivery(agent, name, account.pushed[name]))
        if not frames:
            return
        try:
            await account.socket.send(json.dumps(frames))
            if self.deliver_twice:
                await account.socket.send(json.dumps(frames))
        except ConnectionClosed:
            account.socket = None

    def delivery(self, agent: str, stream: str, seq: int) -> dict[str, Any]:
        envelope, accepted_at = self.accounts[agent].streams[stream][seq - 1]
        sender = self.accounts.get(envelope.sender)
        return {
            "type": "delivery",
            "stream": stream,
            "seq": seq,
            "entry": seq,
            "acceptedAt": format_timestamp(accepted_at),
            "score": SCORE,
            "level": sender.level if sender else "unverified",
            "chain": {"lowestLevel": "verified", "lowestScore": SCORE, "depth": 1},
            "ATP": envelope.document,
        }


class _CutError(Exception):
    """A socket that was cut on purpose."""
