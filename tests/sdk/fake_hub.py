"""A hub on a real socket and without a database, for tests of the SDK alone.

It logs agents in, and delivers envelopes by stream and sequence number. A test can make it
misbehave as after crashes and network faults. It judges as every hub does (`atp.memory.judge`).
Its own are only the facts, which are the arguments of `enrol`, and its policies, which allow
everything.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from atp import ATPError, IAgentIdentity, IAttestation, PrivateKey, PublicKey, TrustLevel
from atp.judging import judgement
from atp.judging.facts import KeyFacts
from atp.judging.judgement import Verdict
from atp.judging.scoring import score
from atp.memory import trust
from atp.memory.judge import Judge, Party, Ruling
from atp.trust import tokens
from atp.trust.envelope import Envelope, VerifiedEnvelope, envelope_from_value, signature_header
from atp.trust.signing import read_header
from atp.types import BROADCAST_TARGET, MessageType
from atp.wire.agent_frames import (
    AgentFrame,
    Authenticate,
    CancelRequest,
    Submission,
    parse_agent_message,
)
from atp.wire.canonical import parse
from atp.wire.frames import (
    SUBPROTOCOL,
    Cancelled,
    Challenge,
    Delivery,
    Failure,
    Gone,
    Receipt,
    Welcome,
    join_frames,
)
from atp.wire.members import WireFrame
from atp.wire.timestamps import format_timestamp
from atp.wire.words import CANCEL, DONE, NOTICES, SEND_ONLY, STREAMS, Stream, stream_of
from tests.sdk.fake_acks import MOST_FAILURES, WINDOW, DoneBook

MESSAGE_MAX_BYTES = 1024 * 1024
ABNORMAL = 1006  # RFC 6455, section 7.1.5: there was no close frame


@dataclass(frozen=True)
class Posted:
    """An envelope in a stream, with the members of its delivery."""

    envelope: Envelope
    accepted_at: float
    verdict: Verdict
    redelivered: bool = False


@dataclass
class Account:
    """The state of an agent at the hub: its facts, its key, its two streams and their acks."""

    identity: IAgentIdentity
    key: PublicKey
    minimum_level: str = ""
    streams: dict[Stream, list[Posted]] = field(
        default_factory=lambda: {stream: [] for stream in STREAMS}
    )
    acked: Counter[Stream] = field(default_factory=Counter)
    pushed: Counter[Stream] = field(default_factory=Counter)
    refused: list[tuple[Stream, int, str]] = field(default_factory=list)
    socket: ServerConnection | None = None
    session: str = ""
    beside: dict[ServerConnection, int] = field(default_factory=dict)  # answers told to each
    features: tuple[str, ...] = ()  # of the protocol, which its client uses
    book: DoneBook = field(init=False)

    def __post_init__(self) -> None:
        self.book = DoneBook(self.acked, self.pushed, refused=self.refused)

    def begin(self, socket: ServerConnection, features: tuple[str, ...]) -> None:
        """Begin with a new connection: what is not done is delivered again."""
        self.socket, self.features = socket, features
        self.pushed.clear()
        self.pushed.update(self.acked)
        self.book.open()

    def has_room(self, stream: Stream) -> bool:
        if DONE in self.features:
            return self.book.has_room(stream)
        return self.pushed[stream] - self.acked[stream] < WINDOW

    def party(self, *, now: float) -> Party:
        """The agent as a registry would describe it to the judge."""
        identity = self.identity
        return Party(
            agent=replace(trust.believed_agent(identity), minimum_level=self.minimum_level),
            attestations=trust.believed_attestations(identity, None, kid=self.key.kid),
            inputs=trust.believed_inputs(identity, None, now=now, key_algorithm=self.key.alg),
        )


class FakeHub:
    """A hub that can misbehave. `script` may return a verdict for an envelope, or `None`.

    With a verdict the judge is not asked. The hub is the `Registry` of its judge. `clock` is in
    seconds since 1970; a test may replace it.
    """

    def __init__(self) -> None:
        self.id = f"hub-{secrets.token_hex(8)}"
        self.key = PrivateKey.generate()
        self.clock: Callable[[], float] = time.time
        self.told_time = ""  # in challenges, instead of the time of `clock`
        self.accounts: dict[str, Account] = {}
        self.accepted: dict[str, Envelope] = {}  # by message id
        self.logins: Counter[str] = Counter()
        self.refused_logins: Counter[str] = Counter()
        self.received: Counter[str] = Counter()  # envelopes by message id, repeats included
        self.bytes_of: dict[str, bytes] = {}
        self.script: Callable[[Envelope], Verdict | None] = lambda envelope: None
        self.lose_receipts = 0  # how many sockets to cut after acceptance, before the receipt
        self.deliver_twice = False
        self.keep_deliveries = False
        self.refusing: dict[str, ATPError] = {}  # by agent: the error of its login
        self.refused_at: list[float] = []  # monotonic seconds
        self.features: tuple[str, ...] = (DONE, CANCEL, NOTICES, SEND_ONLY)
        self.cancels: list[tuple[str, str]] = []  # agent and message id of each cancel frame
        self.faults: list[str] = []  # acts of agents that break the protocol
        self.close_codes: list[int | None] = []  # of sockets that have ended, in order
        self._judge = Judge(self)
        self._entries: dict[tuple[str, str], int] = {}  # by sender and message id
        self._server: Server | None = None
        self._sockets: set[ServerConnection] = set()
        self._killed = False
        self._port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/ws/agents/"

    def enrol(
        self,
        agent: str,
        *,
        level: str | None = "verified",
        minimum: str = "",
        capabilities: tuple[str, ...] = (),
    ) -> PrivateKey:
        """Add an agent, attested at `level` (`None`: not attested); return its new key."""
        key = PrivateKey.generate()
        attestation = None if level is None else IAttestation("tests", TrustLevel(level))
        identity = IAgentIdentity(agent, attestation=attestation, capabilities=list(capabilities))
        self.accounts[agent] = Account(identity, key.public, minimum)
        return key

    def score_of(self, agent: str) -> int:
        """The score of an agent, as a hub computes it."""
        now = self.clock()
        return score(self.accounts[agent].party(now=now).inputs, now).total

    async def start(self) -> None:
        self._killed = False
        self._server = await serve(
            self._converse,
            "127.0.0.1",
            self._port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=MESSAGE_MAX_BYTES,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def kill(self) -> None:
        """Stop as after SIGKILL: sockets break without a close frame, stored data stays.

        A socket whose agent is still logging in breaks as well: the server waits for all of them.
        """
        assert self._server is not None
        self._killed = True
        for socket in tuple(self._sockets):
            socket.transport.abort()
        for account in self.accounts.values():
            account.socket = None
            account.beside.clear()
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
        await _send(socket, Failure(code, "as told"))
        await socket.close()

    async def tell(self, agent: str, frame: WireFrame) -> None:
        socket = self.accounts[agent].socket
        assert socket is not None
        await _send(socket, frame)

    async def release(self, envelope: Envelope) -> None:
        """Judge and deliver what `script` held back, as when an officer lets it pass."""
        await self._judge_and_deliver(envelope.sender, envelope)

    async def post(self, recipient: str, envelope: Envelope, verdict: Verdict) -> None:
        """Put an envelope at the end of the recipient's stream, whatever a judge would say."""
        stream = self.accounts[recipient].streams[stream_of(envelope.message_type)]
        stream.append(Posted(envelope, self.clock(), verdict))
        await self._push(recipient)

    async def redeliver(self, recipient: str, stream: Stream, seq: int) -> None:
        """Send a dead letter again, as officers do: it gets a new place."""
        posted = self.accounts[recipient].streams[stream]
        posted.append(replace(posted[seq - 1], redelivered=True))
        await self._push(recipient)

    def delivery(self, agent: str, stream: Stream, seq: int) -> Delivery | Gone:
        """The frame for the envelope at `seq` of one of the agent's streams."""
        account = self.accounts[agent]
        posted = account.streams[stream][seq - 1]
        failures = account.book.failures[stream, seq]
        if account.book.is_done(stream, seq):
            return Gone(stream, seq, seq, "delivery.done")
        if failures >= MOST_FAILURES:
            return Gone(stream, seq, seq, "handler.failed")
        verdict = posted.verdict
        return Delivery(
            stream=stream,
            seq=seq,
            value={"ATP": posted.envelope.document},
            plain=posted.envelope.plain,
            entry=seq,
            accepted_at=format_timestamp(posted.accepted_at),
            score=verdict.score,
            level=verdict.level,
            chain=verdict.chain.to_wire() if verdict.chain else {},
            attempt=failures + 1,
            redelivered=posted.redelivered,
        )

    # --- What the judge asks ---------------------------------------------------------------------

    def verify(self, envelope: Envelope, *, session_agent: str, now: float) -> VerifiedEnvelope:
        """Whether the sender's own key signed it."""
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
        return None if account is None else account.party(now=now)

    def _find_key(self, kid: str) -> KeyFacts | None:
        for agent, account in self.accounts.items():
            if account.key.kid == kid:
                return KeyFacts(agent, "active", account.key)
        return None

    # --- One socket ------------------------------------------------------------------------------

    async def _converse(self, socket: ServerConnection) -> None:
        if self._killed:
            socket.transport.abort()
            return
        self._sockets.add(socket)
        agent = ""
        try:
            agent = await self._log_in(socket)
            await self._push(agent)
            async for message in socket:
                frames = parse_agent_message(message, max_bytes=MESSAGE_MAX_BYTES)
                if socket in self.accounts[agent].beside:  # its acks count for nobody
                    frames = [frame for frame in frames if isinstance(frame, Submission)]
                receipts = [r for frame in frames if (r := await self._frame(agent, frame))]
                if receipts:
                    await _send(socket, *receipts)
            self._charge(agent, socket)
        except (ConnectionClosed, _CutError):
            self._charge(agent, socket)
        except ATPError as problem:
            await _send(socket, Failure(problem.code, problem.detail, problem.retry_after))
        finally:
            self._sockets.discard(socket)
            self.close_codes.append(socket.close_code)
            self._detach(socket)

    async def _log_in(self, socket: ServerConnection) -> str:
        nonce = secrets.token_urlsafe(16)
        told = self.told_time or format_timestamp(self.clock())
        await _send(socket, Challenge(self.id, nonce, told, self.features))
        login = Authenticate.parse(parse(await socket.recv()))
        proof = login.proof
        kid = read_header(proof).kid
        agent, account = next((a, c) for a, c in self.accounts.items() if c.key.kid == kid)
        now = time.time()
        claims = tokens.verify(
            tokens.TokenKind.AUTH, proof, account.key, now=now, audience=self.id, issuer=agent
        )
        if (claims["nonce"], claims["htu"]) != (nonce, self.url):
            self.faults.append(f"{agent} proved itself for another login")
        if agent in self.refusing:
            self.refused_logins[agent] += 1
            self.refused_at.append(time.monotonic())
            raise self.refusing[agent]
        session = str(uuid.uuid4())
        current = account.session if account.socket else ""
        beside = bool(current) and not login.takeover and login.resumes != current
        send_only = beside or login.send_only
        answer = {"iss": self.id, "aud": agent, "nonce": claims["cnonce"], "session": session}
        level = account.identity.attestation.level if account.identity.attestation else ""
        welcome = Welcome(
            session=session,
            agent=agent,
            level=str(level),
            score=self.score_of(agent),
            window=WINDOW,
            pending=0,
            proof=tokens.issue(tokens.TokenKind.WELCOME, answer, self.key, now=int(now)),
            send_only=send_only,
        )
        self.logins[agent] += 1
        if send_only:
            account.beside[socket] = len(account.streams["answers"])
            await _send(socket, welcome)
            return agent
        if account.socket is not None:
            await self.end(agent, "session.superseded")
        account.begin(socket, login.features)
        account.session = session
        await _send(socket, welcome)
        return agent

    async def _frame(self, agent: str, frame: AgentFrame) -> Receipt | None:
        if isinstance(frame, Submission):
            return await self._take(agent, frame)
        if isinstance(frame, CancelRequest):
            await self._pass_on_cancel(agent, frame.message_id)
            return None
        account = self.accounts[agent]
        if DONE in account.features:
            self.faults += [f"{agent} told {fault}" for fault in account.book.note(frame)]
            await self._push(agent)
            return None
        if frame.tells_places:
            self.faults.append(f"{agent} told places without the feature done")
        if frame.seq > account.pushed[frame.stream]:
            place = f"{frame.stream} {frame.seq}"
            self.faults.append(f"{agent} acknowledged {place} before it was delivered")
        account.acked[frame.stream] = max(account.acked[frame.stream], frame.seq)
        if frame.refused:
            account.refused.append((frame.stream, frame.seq, frame.refused))
        await self._push(agent)
        return None

    async def _pass_on_cancel(self, agent: str, message_id: str) -> None:
        if CANCEL not in self.accounts[agent].features:
            self.faults.append(f"{agent} sent a cancel frame without the feature")
        self.cancels.append((agent, message_id))
        request = self._judge.open_request(agent, message_id, now=self.clock())
        hearer = self.accounts[request.target] if request is not None else None
        if hearer is not None and hearer.socket is not None and CANCEL in hearer.features:
            await _send(hearer.socket, Cancelled(message_id, agent))

    async def _take(self, agent: str, frame: Submission) -> Receipt:
        """Judge an envelope, deliver it if it is accepted, and return its receipt."""
        try:
            envelope = envelope_from_value(frame.value, plain=frame.plain)
        except ATPError as problem:
            return Receipt(frame.message_id, "invalid", problem.code, problem.detail)
        self._note_received(agent, envelope)
        repeat = self._judge.find_repeat(agent, envelope)
        scripted = None if repeat else self.script(envelope)
        if scripted is not None:
            return Ruling(scripted).to_receipt(envelope.message_id)
        ruling = repeat or await self._judge_and_deliver(agent, envelope)
        if ruling.verdict.accepted and self.lose_receipts:
            self.lose_receipts -= 1
            self.cut(self.accounts[agent])
            raise _CutError
        entry = self._entries.get((agent, envelope.message_id))
        if ruling.verdict.accepted and envelope.message_type is MessageType.REQUEST:
            online = self.accounts[envelope.target].socket is not None
            ruling = replace(ruling, connected=online)
        return ruling.to_receipt(envelope.message_id, entry=entry)

    def _note_received(self, agent: str, envelope: Envelope) -> None:
        self.received[envelope.message_id] += 1
        first = self.bytes_of.setdefault(envelope.message_id, envelope.canonical)
        if first != envelope.canonical:
            self.faults.append(f"{agent} sent {envelope.message_id} again with other bytes")

    async def _judge_and_deliver(self, agent: str, envelope: Envelope) -> Ruling:
        ruling = self._judge.rule(
            agent, envelope, audience=self._audience(agent, envelope), now=self.clock()
        )
        if ruling.verdict.accepted:
            self.accepted[envelope.message_id] = envelope
            self._entries[agent, envelope.message_id] = len(self._entries)
        for recipient in ruling.recipients:
            await self.post(recipient, envelope, ruling.verdict)
        return ruling

    def _audience(self, sender: str, envelope: Envelope) -> list[str]:
        if envelope.target != BROADCAST_TARGET:
            return [envelope.target]
        online = [agent for agent, account in self.accounts.items() if account.socket]
        return [agent for agent in online if agent != sender]

    async def _push(self, agent: str) -> None:
        """Send the agent its next deliveries, up to a window beyond its last ack."""
        account = self.accounts[agent]
        await self._push_copies(agent)
        socket = account.socket
        if socket is None or self.keep_deliveries:
            return
        frames = []
        for name, stream in account.streams.items():
            while account.pushed[name] < len(stream) and account.has_room(name):
                account.pushed[name] += 1
                frames.append(self.delivery(agent, name, account.pushed[name]))
        if not frames:
            return
        try:
            await _send(socket, *frames)
            if self.deliver_twice:
                await _send(socket, *frames)
        except ConnectionClosed:
            self._detach(socket)

    async def _push_copies(self, agent: str) -> None:
        """Send new answers to the agent's sockets that only send."""
        account = self.accounts[agent]
        last = len(account.streams["answers"])
        for socket, told in list(account.beside.items()):
            if told == last or self.keep_deliveries:
                continue
            account.beside[socket] = last
            new = [self.delivery(agent, "answers", seq) for seq in range(told + 1, last + 1)]
            with suppress(ConnectionClosed):
                await _send(socket, *new)

    def _charge(self, agent: str, socket: ServerConnection) -> None:
        """Count the handlers that an agent's own end interrupted, if the hub did not cut it."""
        account = self.accounts.get(agent)
        if account is not None and account.socket is socket and socket.close_code == ABNORMAL:
            account.book.break_off()

    def _detach(self, socket: ServerConnection) -> None:
        """Forget a socket that is gone; its agent may have another one by now."""
        for account in self.accounts.values():
            account.beside.pop(socket, None)
            if account.socket is socket:
                account.socket = None


class _CutError(Exception):
    """A socket that was cut on purpose."""


async def _send(socket: ServerConnection, *frames: WireFrame) -> None:
    await socket.send(join_frames(frame.to_bytes() for frame in frames), text=True)
