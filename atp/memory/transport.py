"""The in-memory transport: all agents in one process, for development and tests.

It uses the frames of a hub and judges as a hub does (`atp.memory.hub`). An agent that is not
connected can't be reached; what it had not handled before is delivered when it connects again. All
differences are in docs/sdk.md#demo-mode.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter, deque
from dataclasses import replace
from random import Random
from typing import Any, ClassVar, Final, Protocol

from atp.envelope_shell import ATPEnvelope
from atp.errors import (
    ATPError,
    FlowBusy,
    FlowRecipientFull,
    MalformedEnvelope,
    RecipientUnavailable,
    SessionClosed,
    SessionSuperseded,
    from_code,
)
from atp.judging.judgement import Verdict
from atp.memory.hub import ConnectedAgent, DemoHub
from atp.memory.judge import Ruling
from atp.memory.keys import DEMO_HUB_ID, DIRECTORY
from atp.memory.mailbox import MemoryMailbox
from atp.transports.base import Connection, Login, Transport
from atp.trust.envelope import Envelope, envelope_from_value
from atp.types import (
    BROADCAST_TARGET,
    ITransportMessage,
    MessageType,
    TransportType,
    check_agent_id,
)
from atp.wire.agent_frames import Ack, CancelRequest, Submission, parse_agent_message
from atp.wire.frames import (
    MESSAGE_MAX_BYTES,
    Cancelled,
    Failure,
    Receipt,
    Welcome,
    splice_delivery,
)
from atp.wire.timestamps import format_timestamp
from atp.wire.words import ANSWERS, CANCEL, DONE, SEND_ONLY, stream_of

__all__ = ["InMemoryTransport"]

logger = logging.getLogger(__name__)

WINDOW: Final = 256  # docs/protocol.md#frames: envelopes without a receipt
INBOX_LIMIT: Final = 10_000  # deliveries that an agent has not handled, frames that it has not read
HISTORY_LIMIT: Final = 1_000  # messages that `get_message_history` returns at most
BUSY_RETRY_SECONDS: Final = 0.05  # after a simulated failure
_SIMULATED_ERROR: Final = Ruling(Verdict("busy", FlowBusy.code, "", retry_after=BUSY_RETRY_SECONDS))


class MessageQueue(Protocol):
    """The queue of an agent without a client, such as an `asyncio.Queue`."""

    def put_nowait(self, item: Any, /) -> None:
        """Take an `ATPEnvelope`; raises `asyncio.QueueFull` where there is no room for it."""


class InMemoryTransport(Transport):
    """A transport between the agents of a process; clients use `get_instance()` by default.

    Dates are judged by `clock`, which returns seconds since 1970 and may be replaced.
    """

    type = TransportType.IN_MEMORY
    demo = True
    hub_id = DEMO_HUB_ID
    _instance: ClassVar[InMemoryTransport | None] = None

    def __init__(self) -> None:
        self.clock = time.time
        self._hub = DemoHub()
        self._history: deque[ITransportMessage] = deque(maxlen=HISTORY_LIMIT)
        self._stats: Counter[str] = Counter()
        self._connections: dict[str, _MemoryConnection] = {}
        self._mailboxes: dict[str, MemoryMailbox] = {}
        self._beside: dict[str, list[_MemoryConnection]] = {}  # those that only send
        self._latency_seconds = 0.0
        self._error_rate = 0.0
        self._random = Random()  # noqa: S311 - decides on simulated errors, not on secrets

    @classmethod
    def get_instance(cls) -> InMemoryTransport:
        """Return the shared instance of this process."""
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    # Agents without a client

    def register_agent(self, agent_id: str, message_queue: MessageQueue) -> None:
        """Put an `ATPEnvelope` into `message_queue` for each message to `agent_id`.

        Raises `IdentityInvalidId`. Senders get `FlowRecipientFull` while the queue is full.
        """

        def deliver(envelope: Envelope, verdict: Verdict) -> None:
            try:
                message_queue.put_nowait(_shell(envelope, verdict, self))
            except asyncio.QueueFull as exc:
                raise FlowRecipientFull(f"the queue of {agent_id} is full") from exc

        is_full = getattr(message_queue, "full", lambda: False)
        self._hub.members[check_agent_id(agent_id)] = ConnectedAgent(agent_id, deliver, is_full)

    def unregister_agent(self, agent_id: str) -> None:
        """Remove an agent; a client with that id loses its connection."""
        self._hub.members.pop(agent_id, None)
        connection = self._connections.pop(agent_id, None)
        for one in [*self._beside.pop(agent_id, ()), *([connection] if connection else [])]:
            one.end()

    async def send_message(
        self, from_agent: str, to_agent: str, envelope: ATPEnvelope | Envelope
    ) -> None:
        """Send a message, or a broadcast, to one agent; raises the error of a refusal."""
        await self._simulate_latency()
        strict = envelope.to_envelope() if isinstance(envelope, ATPEnvelope) else envelope
        if strict.target not in (to_agent, BROADCAST_TARGET):
            raise MalformedEnvelope(f"the envelope is addressed to {strict.target}, not {to_agent}")
        self._hand_in(from_agent, strict, only=to_agent)

    async def broadcast(self, from_agent: str, envelope: ATPEnvelope | Envelope) -> int:
        """Send a broadcast to every other agent; return how many there were.

        Raises `MalformedEnvelope` if it is not a broadcast, or the error of its refusal.
        """
        await self._simulate_latency()
        strict = envelope.to_envelope() if isinstance(envelope, ATPEnvelope) else envelope
        if strict.target != BROADCAST_TARGET:
            raise MalformedEnvelope(f"a broadcast is addressed to *, not to {strict.target}")
        return len(self._hand_in(from_agent, strict).recipients)

    def get_message_history(self) -> list[ITransportMessage]:
        """Return the latest accepted messages, oldest first."""
        return list(self._history)

    def get_connected_agents(self) -> list[str]:
        """Return the ids of all agents that can be reached."""
        return sorted(self._hub.members)

    def get_stats(self) -> dict[str, int]:
        """Return counts since the start or the last `reset`."""
        return {
            "connected_agents": len(self._hub.members),
            "messages_accepted": self._stats["accepted"],
            "messages_refused": self._stats["refused"],
            "deliveries": self._stats["deliveries"],
            "broadcasts": self._stats["broadcasts"],
            "simulated_errors": self._stats["simulated_errors"],
        }

    # For development and tests

    def simulate(
        self, *, latency_seconds: float = 0.0, error_rate: float = 0.0, seed: int | None = None
    ) -> None:
        """Delay each message, and refuse a share of them (0 to 1) with `flow.busy`.

        Clients send such a message again. With `seed`, the same messages fail in each run.
        """
        self._latency_seconds = latency_seconds
        self._error_rate = error_rate
        if seed is not None:
            self._random.seed(seed)

    def drop_connection(self, agent_id: str) -> None:
        """Close a client's connection, as a bad network would; the client connects again."""
        connection = self._connections.get(agent_id)
        if connection is not None:
            connection.end()

    def reset(self) -> None:
        """Forget agents, keys, history and counts, and restore the clock."""
        for agent in [*self._connections, *self._hub.members]:
            self.unregister_agent(agent)
        DIRECTORY.clear()
        self._mailboxes.clear()
        self.clock = time.time
        self._hub = DemoHub()
        self._history.clear()
        self._stats.clear()
        self.simulate()

    async def connect(self, login: Login) -> Connection:
        """Connect a client; an older connection with the same id ends.

        Without `login.takeover`, the older one stays, and the new one only sends.
        """
        agent = check_agent_id(login.identity.id)
        if login.key is not None:
            DIRECTORY.note(agent, login.key)
        older = self._connections.get(agent)
        if older is not None and older.live and _is_beside(login, older.welcome):
            return self._connect_beside(login)
        self._connections.pop(agent, None)
        if older is not None:
            older.end(SessionSuperseded("a newer login of this agent took over"))
        mailbox = self._mailboxes.setdefault(agent, MemoryMailbox())
        connection = _MemoryConnection(self, login, self._welcome(login), mailbox)
        self._make_current(connection)
        return connection

    def _connect_beside(self, login: Login) -> _MemoryConnection:
        """Connect a client that only sends, beside the one that takes the agent's mail."""
        agent = login.identity.id
        welcome = replace(self._welcome(login), pending=0, send_only=True)
        copies = self._mailboxes[agent].copies()
        connection = _MemoryConnection(self, login, welcome, copies)
        self._beside.setdefault(agent, []).append(connection)
        return connection

    def _make_current(self, connection: _MemoryConnection) -> None:
        login = connection.login
        agent = login.identity.id
        self._connections[agent] = connection
        self._hub.members[agent] = ConnectedAgent(
            agent, connection.deliver, connection.is_full, login.identity, login.trust_level
        )

    def _welcome(self, login: Login) -> Welcome:
        identity = login.identity
        level, score = self._hub.standing(identity, login.trust_level, now=self.clock())
        return Welcome(
            session=str(uuid.uuid4()),
            agent=identity.id,
            level=str(level or ""),
            score=score,
            window=WINDOW,
            pending=self._mailboxes[identity.id].undone,
            features=(DONE, CANCEL, SEND_ONLY),
        )

    def _left(self, agent: str, connection: _MemoryConnection) -> None:
        """Forget a connection; one beside it takes its place, so that answers find the agent."""
        beside = self._beside.get(agent, [])
        if connection in beside:
            beside.remove(connection)
        if self._connections.get(agent) is connection:
            del self._connections[agent]
            self._hub.members.pop(agent, None)
            if live := [one for one in beside if one.live]:
                beside.remove(live[0])
                live[0].take_mail(self._mailboxes[agent])
                self._make_current(live[0])

    async def _simulate_latency(self) -> None:
        if self._latency_seconds:
            await asyncio.sleep(self._latency_seconds)

    def _pass_on_cancel(self, sender: str, message_id: str) -> None:
        request = self._hub.find_open_request(sender, message_id, now=self.clock())
        connection = self._connections.get(request.target) if request is not None else None
        if connection is not None:
            connection.tell_cancelled(sender, message_id)

    def _take(self, sender: str, submission: Submission) -> Receipt:
        """Judge an envelope of `sender`, deliver it if it is accepted, and return its receipt."""
        return self._answer(sender, submission).to_receipt(submission.message_id)

    def _answer(self, sender: str, submission: Submission) -> Ruling:
        try:
            envelope = envelope_from_value(submission.value, plain=submission.plain)
        except ATPError as problem:
            self._stats["refused"] += 1
            return Ruling(Verdict("invalid", problem.code, problem.detail))
        if self._random.random() < self._error_rate:
            self._stats["simulated_errors"] += 1
            return _SIMULATED_ERROR
        return self._hub.find_repeat(sender, envelope) or self._rule(sender, envelope)

    def _hand_in(self, sender: str, envelope: Envelope, *, only: str | None = None) -> Ruling:
        """Judge and deliver a message without a client; raises the error of a refusal."""
        repeat = self._hub.find_repeat(sender, envelope)
        is_conflict = repeat is not None and repeat.verdict.status == "invalid"
        ruling = repeat if repeat and is_conflict else self._rule(sender, envelope, only=only)
        verdict = ruling.verdict
        if not verdict.accepted:
            raise from_code(verdict.code, verdict.detail)
        return ruling

    def _rule(self, sender: str, envelope: Envelope, *, only: str | None = None) -> Ruling:
        """Judge a message, and deliver it if it is accepted."""
        ruling = self._hub.rule(sender, envelope, now=self.clock(), only=only)
        if ruling.verdict.accepted:
            ruling = self._deliver(sender, envelope, ruling)
        if not ruling.verdict.accepted:
            self._stats["refused"] += 1
            return ruling
        if envelope.message_type is MessageType.REQUEST:
            ruling = replace(ruling, connected=True)  # any other recipient has no mail here
        self._stats["accepted"] += 1
        self._stats["broadcasts"] += envelope.target == BROADCAST_TARGET and only is None
        self._remember(sender, only or envelope.target, envelope, ruling.verdict)
        return ruling

    def _deliver(self, sender: str, envelope: Envelope, ruling: Ruling) -> Ruling:
        """Deliver a message; if its only recipient can't take it, return a ruling that says so."""
        for agent in ruling.recipients:
            try:
                self._hub.members[agent].deliver(envelope, ruling.verdict)
                self._stats["deliveries"] += 1
                self._copy_answer(agent, envelope, ruling.verdict)
            except ATPError as problem:
                if envelope.target == BROADCAST_TARGET:
                    logger.warning("a broadcast did not reach %s", agent)
                    continue
                self._hub.withdraw(sender, envelope)
                return Ruling(_undeliverable(problem))
        return ruling

    def _copy_answer(self, agent: str, envelope: Envelope, verdict: Verdict) -> None:
        """Give an answer to the agent's connections that only send, too."""
        if stream_of(envelope.message_type) == ANSWERS:
            for connection in [one for one in self._beside.get(agent, ()) if one.live]:
                connection.deliver(envelope, verdict)

    def _remember(self, sender: str, target: str, envelope: Envelope, verdict: Verdict) -> None:
        self._history.append(
            ITransportMessage(
                from_agent=sender,
                to_agent=target,
                envelope=_shell(envelope, verdict, self),
                timestamp=format_timestamp(self.clock()),
            )
        )


class _MemoryConnection(Connection):
    """A client's connection. Frames wait in a queue of the client's event loop."""

    def __init__(
        self,
        transport: InMemoryTransport,
        login: Login,
        welcome: Welcome,
        mailbox: MemoryMailbox,
    ) -> None:
        self.welcome = welcome
        self.login = login
        self._transport = transport
        self._agent = login.identity.id
        self._loop = asyncio.get_running_loop()
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._mailbox = mailbox
        self._mailbox.open()
        self._ended = False
        self._push()

    async def send(self, message: bytes) -> None:
        if self._ended:
            raise SessionClosed("the connection ended")
        await self._transport._simulate_latency()
        for frame in parse_agent_message(message, max_bytes=MESSAGE_MAX_BYTES):
            if isinstance(frame, Submission):
                self._put(self._transport._take(self._agent, frame).to_bytes())
            elif isinstance(frame, CancelRequest):
                self._transport._pass_on_cancel(self._agent, frame.message_id)
            elif isinstance(frame, Ack):
                self._mailbox.acknowledge(frame)
                self._push()

    async def receive(self) -> bytes:
        frame = await self._frames.get()
        if frame is None:
            self._frames.put_nowait(None)  # for the next call
            raise SessionClosed("the connection ended")
        return frame

    async def close(self, *, comes_back: bool = False) -> None:
        self.end()

    @property
    def live(self) -> bool:
        """Whether the connection is open, and the event loop of its client too."""
        return not self._ended and not self._loop.is_closed()

    def take_mail(self, mailbox: MemoryMailbox) -> None:
        """Go on with the agent's own mailbox, whose answers have the places of the copies."""
        self._mailbox = mailbox
        mailbox.open()
        self._push()

    def is_full(self) -> bool:
        """Return whether the agent has so much to read or handle that it gets no more."""
        return max(self._frames.qsize(), self._mailbox.undone) >= INBOX_LIMIT

    def deliver(self, envelope: Envelope, verdict: Verdict) -> None:
        """Queue a delivery; raises `RecipientUnavailable` if the client's event loop has ended."""
        stream = stream_of(envelope.message_type)
        accepted_at = format_timestamp(self._transport.clock())

        def frame(seq: int, attempt: int) -> bytes:
            return splice_delivery(
                envelope.canonical,
                stream=stream,
                seq=seq,
                entry=None,
                accepted_at=accepted_at,
                score=verdict.score,
                level=verdict.level,
                chain=verdict.chain.to_wire() if verdict.chain else {},
                attempt=attempt,
            )

        self._mailbox.put(stream, frame)
        self._push()

    def _push(self) -> None:
        """Queue the deliveries for which there is room."""
        if not self._ended:
            for frame in self._mailbox.to_send():
                self._put(frame)

    def tell_cancelled(self, sender: str, message_id: str) -> None:
        """Tell the agent that `sender` no longer waits for an answer, unless it does not read."""
        if not self.is_full():
            self._put(Cancelled(message_id, sender).to_bytes())

    def end(self, reason: ATPError | None = None) -> None:
        """End the connection after the queued frames, and after the error frame of `reason`."""
        if self._ended:
            return
        self._ended = True
        self._transport._left(self._agent, self)
        try:
            if reason is not None:
                self._put(Failure(reason.code, reason.detail, reason.retry_after).to_bytes())
            self._put(None)
        except RecipientUnavailable:
            logger.debug("%s was gone already", self._agent)

    def _put(self, data: bytes | None) -> None:
        """Queue the text of a frame, or `None` for the end; from any thread."""
        try:
            if asyncio.get_running_loop() is self._loop:
                self._frames.put_nowait(data)
                return
        except RuntimeError:
            logger.debug("called from outside of an event loop")
        try:
            self._loop.call_soon_threadsafe(self._frames.put_nowait, data)
        except RuntimeError as exc:  # the client's loop is closed
            raise RecipientUnavailable(f"the event loop of {self._agent} has ended") from exc


def _is_beside(login: Login, current: Welcome) -> bool:
    """Return whether a login leaves the agent's current connection as it is."""
    return not login.takeover and login.resumes != current.session


def _shell(envelope: Envelope, verdict: Verdict, transport: InMemoryTransport) -> ATPEnvelope:
    shell = ATPEnvelope.from_envelope(envelope, clock=transport.clock)
    shell.told_score = verdict.score
    return shell


def _undeliverable(problem: ATPError) -> Verdict:
    busy = isinstance(problem, FlowRecipientFull)
    return Verdict("busy" if busy else "denied", problem.code, problem.detail)
