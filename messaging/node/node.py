"""This serving process: its lease, its layer channel, its sockets, and the polls behind both.

A push over the layer is a short cut. What it loses is found by the gap in `seq` or by the poll;
what an officer revoked is seen at the next look at the epoch, layer or no layer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from operator import attrgetter
from typing import Any, TypeVar

from channels.layers import get_channel_layer
from django.conf import settings
from django.db import Error as DatabaseProblem
from django.db import close_old_connections, connections

from atp.errors import ATPError, FlowBusy
from atp.wire.words import STREAMS
from messaging.layer import loops
from messaging.layer.events import publish_superseded
from messaging.layer.news import News
from messaging.mail import inbox
from messaging.mail.mailboxes import Ack, acknowledge
from messaging.node.connections import Connection
from messaging.node.dispatch import Dispatcher, Frame
from messaging.node.lanes import Lane
from messaging.node.registry_watch import Watch
from messaging.node.streams import Streams
from messaging.periodic.beat import EmbeddedBeat
from messaging.sessions import leases as lease
from messaging.sessions.sessions import Login, Opened, close_sessions, open_sessions
from messaging.telemetry import instruments
from messaging.wire import admission
from messaging.wire.handshakes import Handshakes
from registry.hub.actions import hub_id
from registry.storage.threads import DatabaseThreads

logger = logging.getLogger(__name__)

T = TypeVar("T")

Closing = tuple[str, str, str]  # agent, session, code

RETRY_SECONDS = 1.0  # while the database is away
POLL_CHUNK = 500  # agents asked for in one poll query
CARRY_OVER_SECONDS = 1.0  # between two looks at SQLite's write-ahead log
ACK_LINGER_SECONDS = 0.1  # a commit for all acks of so long; nobody waits for one
STOP_SECONDS = 1.0  # for what a lane still holds when the node stops
DRAIN_SECONDS = 5.0  # before that, for what was taken to get its receipts
GOODBYE_SECONDS = 2.0  # and for the sockets to be closed with a reason


class Node:
    """Everything that a serving process holds. One per process, made by `start()`."""

    def __init__(self) -> None:
        self.id = uuid.uuid4()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.channel = ""
        self.hub_id = ""
        self.executor = DatabaseThreads(settings.ATP_EXECUTOR_THREADS, "hub-db")
        self.sessions: dict[str, Connection] = {}
        self.agents: dict[str, Connection] = {}
        self.handshakes = Handshakes()
        self.draining = False
        self._deserted = asyncio.Event()  # the last socket has gone
        self._tasks: list[asyncio.Task[None]] = []
        self._watch = Watch(
            self.id, self.sessions, lambda: self._streams.resume(self.sessions.values())
        )
        self._streams = Streams(self.in_thread, self._watch.sees)
        self._beat = EmbeddedBeat() if settings.CELERY_TASK_ALWAYS_EAGER else None

    # --- Life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        loops.use_node_loop(asyncio.get_running_loop())
        self.channel = await get_channel_layer().new_channel("node")
        await self.in_thread(lease.take, self.id, self.name, self.channel)
        self.hub_id = await self.in_thread(hub_id)
        await self._watch.begin()
        self.dispatcher = Dispatcher(
            self.channel,
            self.executor,
            tell=self._tell,
            settle=self._settle,
            sees=self._watch.sees,
        )
        self.envelope_lane: Lane[Frame] = Lane(
            "envelopes",
            self.dispatcher.judge,
            most_items=settings.ATP_BATCH_ENVELOPES,
            most_bytes=settings.ATP_BATCH_BYTES,
            whose=attrgetter("agent"),
            places=settings.ATP_BATCHES_UNDER_WAY,
        )
        self.ack_lane: Lane[tuple[Connection, str]] = Lane(
            "acks", self._take_acks, linger_seconds=ACK_LINGER_SECONDS
        )
        self.login_lane: Lane[tuple[Login, asyncio.Future[Opened]]] = Lane(
            "logins", self._open, most_items=64
        )
        self.newcomer_lane: Lane[str] = Lane("newcomers", self._catch_up)
        self.close_lane: Lane[tuple[Closing, list[Ack]]] = Lane("closings", self._close)
        for lane in self._lanes():
            lane.start()
        admission.of_running_loop().busy = lambda: self.envelope_lane.busy
        for work in (self._watch.keep_lease(), self._watch.follow_epoch()):
            self._spawn(work)
        for work in (self._hear_news(), self._poll(), self._carry_over_log()):
            self._spawn(work)
        if self._beat is not None:
            self._beat.start()

    async def drain(self) -> None:
        """Take no envelope more, and tell the receipts of those that were taken, in bounded time.

        Then the sockets are closed. What has no receipt by then the agents send again elsewhere.
        """
        self.draining = True
        live = list(self.sessions.values())
        for connection in live:
            connection.paused = True
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.envelope_lane.settled()
                await asyncio.gather(*(connection.written() for connection in live))
        except TimeoutError:
            logger.warning("stopping with receipts that could not be told")
        await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        """Close every socket with the reason, and wait a little until they have heard it."""
        self._deserted.clear()
        for connection in list(self.sessions.values()):
            connection.close("session.closed")
        if self.sessions:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._deserted.wait(), GOODBYE_SECONDS)

    async def stop(self) -> None:
        """Close the sockets with a code that makes agents come back, finish, let the lease go."""
        beat_stopped = asyncio.create_task(self._stop_beat())
        for connection in list(self.sessions.values()):
            connection.close("session.closed")
        await asyncio.gather(*(lane.stop(within_seconds=STOP_SECONDS) for lane in self._lanes()))
        await loops.end(self._tasks)
        await self._streams.stop()
        await beat_stopped
        await self.in_thread(lease.release, self.id)
        loops.use_node_loop(None)
        for executor in (self.executor, self._watch.executor):
            for _ in range(settings.ATP_EXECUTOR_THREADS):
                executor.submit(connections.close_all)
            executor.shutdown(wait=True, cancel_futures=False)

    async def _stop_beat(self) -> None:
        """Beat takes up to a second to notice, so the rest is stopped meanwhile."""
        if self._beat is not None:
            await asyncio.to_thread(self._beat.stop)

    @property
    def waiting(self) -> dict[str, int]:
        """How much waits in each lane."""
        return {lane.name: len(lane) for lane in self._lanes()}

    def _lanes(self) -> list[Lane[Any]]:
        return [
            self.envelope_lane,
            self.ack_lane,
            self.login_lane,
            self.newcomer_lane,
            self.close_lane,
        ]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run database work off the event loop, in this node's own threads."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *args)

    def sees(self) -> bool:
        """Whether this node knows what officers did lately; blind, it delivers nothing."""
        return self._watch.sees()

    # --- What the consumers ask ----------------------------------------------------------------

    async def log_in(self, login: Login) -> Opened:
        """Open a session; raises the `ATPError` that refuses it."""
        future: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self.login_lane.put((login, future))
        try:
            return await future
        except asyncio.CancelledError:  # it took too long, and nobody will use what was opened
            if future.done() and not future.cancelled() and future.exception() is None:
                self.abandon(future.result())
            raise
        finally:
            del future  # with its exception and this frame it would hold the whole socket

    def abandon(self, opened: Opened) -> None:
        """Close a session whose agent has gone before it was attached."""
        self.close_lane.put(((opened.agent, opened.session, "session.closed"), []))

    def attach(self, connection: Connection, opened: Opened) -> None:
        """Begin to write the inbox to an authenticated socket."""
        if (older := self.agents.get(connection.agent)) is not None:
            older.close("session.superseded")
        self.sessions[connection.session] = connection
        self.agents[connection.agent] = connection
        self._watch.look_at(connection.session)
        self._streams.begin(connection, opened.acked)
        self.newcomer_lane.put(connection.agent)  # read on where mail waits

    def detach(self, connection: Connection, code: str) -> None:
        if code == "session.revoked":
            self._watch.note_closed()
        self.sessions.pop(connection.session, None)
        if not self.sessions:
            self._deserted.set()
        if self.agents.get(connection.agent) is connection:
            del self.agents[connection.agent]
        waiting = [s for s in STREAMS if connection.position(s).acking]  # said before it hung up
        acks = [ack for stream in waiting for ack in _heard(connection, stream)]
        self.close_lane.put(((connection.agent, connection.session, code), acks))

    def take_envelope(self, connection: Connection, text: str) -> None:
        """Hand an envelope to the lane, which keeps the order of a sender's."""
        connection.outstanding += 1
        frame = Frame(connection.session, connection.agent, text)
        self.envelope_lane.put(frame, size=len(text))

    def take_ack(self, connection: Connection, stream: str, seq: int, refused: str) -> None:
        """An ack beyond what was written to this socket counts up to there, and refuses nothing.

        However many come, one a stream waits in the lane.
        """
        position = connection.position(stream)
        if refused and seq <= position.sent and len(position.refused) < position.window:
            position.refused[seq] = refused
        position.heard = max(position.heard, min(seq, position.sent))
        if not position.acking:
            position.acking = True
            self.ack_lane.put((connection, stream))

    # --- Lanes ---------------------------------------------------------------------------------

    async def _take_acks(self, places: list[tuple[Connection, str]]) -> None:
        acks = [ack for connection, stream in places for ack in _heard(connection, stream)]
        try:
            taken = await self.in_thread(acknowledge, acks)
            instruments.ACKS.inc(len(taken))
        except DatabaseProblem:  # they are told again: an agent that has all has no more to ack
            logger.exception("%d acks could not be written down", len(acks))
            await asyncio.sleep(RETRY_SECONDS)
            for ack in acks:
                if (connection := self.sessions.get(ack.session)) is not None:
                    self.take_ack(connection, ack.stream, ack.seq, ack.refused)
            return
        for ack in taken:
            if (connection := self.sessions.get(ack.session)) is None:
                continue
            position = connection.position(ack.stream)
            position.acked = max(position.acked, ack.seq)
            if position.behind:
                self._streams.read_on(connection, ack.stream)

    async def _open(self, waiting: list[tuple[Login, asyncio.Future[Opened]]]) -> None:
        logins = [login for login, _ in waiting]
        try:
            answers = await self.in_thread(open_sessions, logins, self.id)
        except Exception as problem:  # database away: every socket of the batch hears of it
            logger.exception("%d logins could not be handled", len(logins))
            busy = FlowBusy("the hub can't open sessions at the moment")
            answers = [busy for _ in logins]
            del problem
        for (_, future), answer in zip(waiting, answers, strict=True):
            if isinstance(answer, ATPError):
                if not future.cancelled():
                    future.set_exception(answer)
                continue
            if answer.superseded is not None:
                publish_superseded(*answer.superseded)
            if future.cancelled():
                self.abandon(answer)
            else:
                future.set_result(answer)

    async def _close(self, closings: list[tuple[Closing, list[Ack]]]) -> None:
        try:
            if last_acks := [ack for _, acks in closings for ack in acks]:
                taken = await self.in_thread(acknowledge, last_acks)
                instruments.ACKS.inc(len(taken))
            await self.in_thread(close_sessions, [closing for closing, _ in closings])
        except DatabaseProblem:  # or they would seem live for as long as this node is
            logger.exception("%d sessions could not be closed", len(closings))
            await asyncio.sleep(RETRY_SECONDS)
            for closing in closings:
                self.close_lane.put(closing)

    # --- News ----------------------------------------------------------------------------------

    async def _hear_news(self) -> None:
        layer = get_channel_layer()
        while True:
            try:
                message = await layer.receive(self.channel)
                self.on_news(News.unpack(message["payload"]))
            except Exception:  # Redis away, or a message of another version: rows are read anyway
                logger.exception("news from the channel layer could not be taken")
                await asyncio.sleep(0.1)

    def on_news(self, news: News) -> None:
        for session, text in news.receipts:
            self._tell(session, text)
        if news.batch:
            self.dispatcher.on_news(news)
            instruments.take_tally(news.tally)
        for agent, stream, first, last, text in news.deliveries:
            if (connection := self.agents.get(agent)) is not None:
                self._streams.push(connection, stream, first, last, text)
        for agent in news.close_agents:
            if (connection := self.agents.get(agent)) is not None:
                connection.close(news.close_code)
        for session in news.close_sessions:
            if (connection := self.sessions.get(session)) is not None:
                connection.close(news.close_code)

    def _tell(self, session: str, text: str) -> None:
        if (connection := self.sessions.get(session)) is not None:
            connection.write(text)

    def _settle(self, session: str, count: int) -> None:
        if (connection := self.sessions.get(session)) is not None:
            connection.settled(count)

    async def _poll(self) -> None:
        """Find what a lost push would have brought."""
        while True:
            await asyncio.sleep(settings.ATP_POLL_SECONDS)
            agents = list(self.agents)
            for start in range(0, len(agents), POLL_CHUNK):
                await self._catch_up(agents[start : start + POLL_CHUNK])

    async def _catch_up(self, agents: list[str]) -> None:
        """Read on wherever a stream of these agents goes further than was written."""
        try:
            places = await self.in_thread(inbox.last_places, agents)
        except DatabaseProblem:
            logger.exception("the inboxes could not be looked at; the next poll does")
            return
        for (agent, stream), last in places.items():
            if (connection := self.agents.get(agent)) is not None:
                self._streams.catch_up(connection, stream, last)

    async def _carry_over_log(self) -> None:
        """Keep SQLite's log short from a thread of its own, so that no commit has to."""
        while True:
            await asyncio.sleep(CARRY_OVER_SECONDS)
            try:
                await self.in_thread(lease.carry_over_log)
            except DatabaseProblem:
                logger.exception("the write-ahead log could not be carried over")


def _heard(connection: Connection, stream: str) -> list[Ack]:
    """The acks of a stream that came since these were last asked for: refusals, and the highest."""
    position = connection.position(stream)
    refused, position.refused, position.acking = position.refused, {}, False
    codes = {position.heard: "", **refused}
    agent, session = connection.agent, connection.session
    return [Ack(agent, session, stream, seq, code) for seq, code in sorted(codes.items())]


_node: Node | None = None
_node_lock = threading.Lock()


async def start() -> None:
    """Start this process's node; called once, by the ASGI lifespan."""
    global _node
    close_old_connections()
    node = Node()
    await node.start()
    with _node_lock:
        _node = node


async def stop() -> None:
    """Stop this process's node, if it runs."""
    global _node
    with _node_lock:
        node, _node = _node, None
    if node is not None:
        await node.stop()


async def drain() -> None:
    """Make this process's node ready to be stopped, if it runs."""
    if (node := _node) is not None:
        await node.drain()


def running() -> Node | None:
    """This process's node, also while it drains; `None` where there is none."""
    return _node


def is_ready() -> bool:
    """Whether this process has a node that takes connections."""
    return _node is not None and not _node.draining


def current() -> Node:
    """This process's node; raises `FlowBusy` while it starts or stops."""
    if _node is None or _node.draining:
        raise FlowBusy("the hub is starting or stopping")
    return _node
