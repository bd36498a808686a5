"""A hub in three hundred lines, on a real socket, for tests of the SDK alone.

It logs agents in, judges envelopes by the judge of the in-process hub (`atp.memory.judge`),
delivers them by stream and position, and can be told to misbehave as crashes and networks do. Its
registry are its accounts, its policies allow everything, each score is 80, and it has no trail.
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

from atp import ATPError, PrivateKey, PublicKey, envelope_from_value
from atp.judging import judgement
from atp.judging.judgement import AgentFacts, AttestationFacts, KeyFacts
from atp.judging.scoring import Profile, ScoreInputs, TrustScore
from atp.memory.judge import FINAL, Judge, Party, Ruling
from atp.trust import tokens
from atp.trust.envelope import Envelope, VerifiedEnvelope, signature_header
from atp.trust.signing import read_header
from atp.types import BROADCAST_TARGET, MessageType
from atp.wire.canonical import parse
from atp.wire.timestamps import format_timestamp

WINDOW = 256
SCORE = 80
CAPABILITIES = ("finance.read", "finance.write")  # what each agent is attested to be capable of
VALID = (0, 2**40)  # seconds since 1970; when attestations are


@dataclass
class Account:
    """What the hub keeps of an agent: its key, its two streams, and where the acks are.

    At the level "" no issuer attests it; it takes mail from `minimum_level` up.
    """

    key: PublicKey
    level: str = "verified"
    minimum_level: str = ""
    streams: dict[str, list[tuple[Envelope, float]]] = field(
        default_factory=lambda: {"mail": [], "answers": []}
    )
    acked: Counter[str] = field(default_factory=Counter)
    pushed: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[str, int, str]] = field(default_factory=list)
    socket: ServerConnection | None = None


class FakeHub:
    """`script` decides on an envelope before the hub does: a receipt to give instead, or None."""

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
        self.lose_receipts = 0  # cut the socket after accepting so many, before the receipt
        self.deliver_twice = False
        self.keep_deliveries = False
        self.refusing: dict[str, ATPError] = {}  # why agents may not log in
        self.refused_at: list[float] = []  # monotonic seconds
        self.faults: list[str] = []  # what agents did that no agent may
        self.clock: Callable[[], float] = time.time  # what envelopes are judged by
        self._judge = Judge(self, score=_fixed_score)
        self._server: Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/ws/agents/"

    def enrol(self, agent: str, *, level: str = "verified", minimum_level: str = "") -> PrivateKey:
        key = PrivateKey.generate()
        self.accounts[agent] = Account(key.public, level, minimum_level)
        return key

    def judge(self, agent: str, envelope: Envelope) -> dict[str, Any]:
        """The receipt of what `agent` sent; what is accepted stands in the recipients' streams."""
        ruling = self._judge.find_repeat(agent, envelope)
        if ruling is None:
            audience = self._recipients(envelope)
            now = self.clock()
            ruling = self._judge.rule(agent, envelope, audience=audience, now=now)
            if ruling.verdict.accepted:
                self._store(envelope, ruling, now)
        return self._receipt(envelope, ruling)

    # What the judge asks

    def verify(self, envelope: Envelope, *, session_agent: str, now: float) -> VerifiedEnvelope:
        return judgement.verify(
            envelope,
            self._find_key(signature_header(envelope).kid),
            session_agent=session_agent,
            hub_id=self.id,
            now=now,
            find_key=self._find_key,
        )

    def sender(self, verified: VerifiedEnvelope, *, now: float) -> Party | None:
        return self.recipient(verified.envelope.sender, now=now)

    def recipient(self, agent: str, *, now: float) -> Party | None:
        account = self.accounts.get(agent)
        return None if account is None else _party(agent, account)

    def _find_key(self, kid: str) -> KeyFacts | None:
        for agent, account in self.accounts.items():
            if account.key.kid == kid:
                return KeyFacts(agent, "active", account.key)
        return None

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
        """End as by kill -9: sockets break without a word, what was stored stays."""
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
        receipt = self.judge(agent, envelope)
        for recipient in self.accounts:
            await self._push(recipient)
        if self.lose_receipts and receipt["status"] == "accepted":
            self.lose_receipts -= 1
            self.cut(self.accounts[agent])
            raise _CutError
        return receipt

    def _store(self, envelope: Envelope, ruling: Ruling, now: float) -> None:
        self.accepted[envelope.message_id] = envelope
        stream = "answers" if envelope.message_type is MessageType.RESPONSE else "mail"
        for recipient in ruling.recipients:
            self.accounts[recipient].streams[stream].append((envelope, now))

    def _receipt(self, envelope: Envelope, ruling: Ruling) -> dict[str, Any]:
        verdict = ruling.verdict
        receipt: dict[str, Any] = {"type": "receipt", "messageId": envelope.message_id}
        receipt |= {"status": verdict.status, "code": verdict.code, "detail": verdict.detail}
        if verdict.status in FINAL:
            receipt |= {"trustScore": verdict.score, "recipients": len(ruling.recipients)}
        if verdict.accepted:
            receipt["entry"] = list(self.accepted).index(envelope.message_id)
        return receipt

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


def _party(agent: str, account: Account) -> Party:
    attestation = AttestationFacts(
        jti="",
        issuer="fake",
        level=account.level,
        capabilities=frozenset(CAPABILITIES),
        jkt=account.key.kid,
        issued_at=VALID[0],
        expires_at=VALID[1],
    )
    return Party(
        AgentFacts(agent, "active", "fake", minimum_level=account.minimum_level),
        (attestation,) if account.level else (),
        ScoreInputs(level=account.level or None, issued_at=VALID[0], expires_at=VALID[1]),
    )


def _fixed_score(inputs: ScoreInputs, now: float, profile: Profile) -> TrustScore:
    return TrustScore(SCORE, {}, (), inputs, now, profile)


class _CutError(Exception):
    """The socket was cut on purpose."""
