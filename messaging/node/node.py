"""The node of a serving process: its lease, its sockets, its lanes, and their start and end.

A push over the channel layer only saves time. A lost push is found by the gap in `seq` or by the
poll (`catch_up.py`). A revocation is seen when the node next reads the epoch (`registry_watch.py`),
with or without the layer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from operator import attrgetter
from typing import Any

from channels.layers import get_channel_layer
from django.conf import settings
from django.db import Error as DatabaseProblem

from messaging.layer import loops
from messaging.node.acks import Acks
from messaging.node.cancels import Cancels
from messaging.node.catch_up import CatchUp
from messaging.node.closings import Closing, Closings
from messaging.node.connections import AgentConnection, SocketEnd
from messaging.node.copies import Copies
from messaging.node.dispatch import BatchDispatcher, IncomingEnvelope
from messaging.node.handshakes import Handshakes
from messaging.node.lanes import Lane
from messaging.node.lock_watch import LockWatch
from messaging.node.logins import Logins
from messaging.node.news_reader import NewsReader
from messaging.node.registry_watch import RegistryWatch
from messaging.node.roster import Roster
from messaging.node.streams import Streams
from messaging.node.threads import NodeThreads
from messaging.periodic.beat import EmbeddedBeat
from messaging.sessions import leases as lease
from messaging.sessions.sessions import Opened
from registry.hub.actions import hub_id

logger = logging.getLogger(__name__)

CARRY_OVER_SECONDS = 1.0  # between two looks at SQLite's write-ahead log
STOP_SECONDS = 1.0  # for the items that a lane still has when the node stops
DRAIN_SECONDS = 5.0  # before that, for the receipts of the envelopes taken
GOODBYE_SECONDS = 2.0  # and for the sockets to be closed with a reason


class ServingNode:
    """The state of a serving process. `begin` makes it; `process_node` owns it."""

    def __init__(
        self, node_id: uuid.UUID, *, channel: str, hub: str, epoch: int, threads: NodeThreads
    ) -> None:
        self.id = node_id
        self.channel = channel
        self.hub_id = hub
        self.draining = False
        self.threads = threads
        self.handshakes = Handshakes()
        self.roster = roster = Roster()
        self._watch = watch = RegistryWatch(node_id, epoch, roster, self._resume)
        self._locks = LockWatch(watch.threads)
        self._streams = streams = Streams(threads, watch.sees)
        self._dispatcher = dispatcher = BatchDispatcher(
            channel, threads, tell=roster.tell, settle=roster.settle, sees=watch.sees
        )
        self.envelope_lane: Lane[IncomingEnvelope] = Lane(
            "envelopes",
            dispatcher.judge,
            most_items=settings.ATP_BATCH_ENVELOPES,
            most_bytes=settings.ATP_BATCH_BYTES,
            whose=attrgetter("agent"),
            most_batches=settings.ATP_BATCHES_UNDER_WAY,
        )
        self.acks = Acks(threads, roster, streams)
        self.cancels = Cancels(threads)
        self.copies = Copies()
        self.closings = Closings(threads)
        self.logins = Logins(node_id, threads, self.closings.abandon)
        self._catch_up = CatchUp(threads, roster, streams)
        self._news = NewsReader(channel, roster, streams, dispatcher)
        self._beat = EmbeddedBeat() if settings.CELERY_TASK_ALWAYS_EAGER else None
        self._lanes: list[Lane[Any]] = [
            self.envelope_lane,
            self.acks.lane,
            self.cancels.lane,
            self.logins.lane,
            self._catch_up.newcomers,
            self.closings.lane,
        ]
        self._tasks: list[asyncio.Task[None]] = []

    # --- Life ----------------------------------------------------------------------------------

    @classmethod
    async def begin(cls) -> ServingNode:
        """Take a lease and start a node. Errors of the database and the layer are not caught."""
        node_id = uuid.uuid4()
        name = f"{socket.gethostname()}:{os.getpid()}"
        threads = NodeThreads(settings.ATP_EXECUTOR_THREADS, "hub-db")
        channel = await get_channel_layer().new_channel("node")
        await threads.run(lease.take, node_id, name, channel)
        hub, epoch = await threads.run(hub_id), await threads.run(lease.epoch)
        node = cls(node_id, channel=channel, hub=hub, epoch=epoch, threads=threads)
        node._start()
        return node

    def _start(self) -> None:
        loops.send_loop.use(asyncio.get_running_loop())
        for lane in self._lanes:
            lane.start()
        for work in (
            self._watch.keep_lease(),
            self._watch.follow_epoch(),
            self._news.read(),
            self._news.ping(),
            self._locks.follow(),
            self._catch_up.poll(),
            self._carry_over_log(),
        ):
            self._spawn(work)
        if self._beat is not None:
            self._beat.start()

    async def drain(self) -> None:
        """Take no more envelopes, send the receipts of those taken, then close the sockets.

        It ends in bounded time. Agents send envelopes without a receipt again, to another node.
        """
        self.draining = True
        live = list(self.roster.sessions.values())
        for connection in live:
            connection.paused = True
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.envelope_lane.settled()
                await asyncio.gather(*(connection.written() for connection in live))
        except TimeoutError:
            logger.warning("stopping with receipts that could not be sent")
        self.roster.close_all("session.closed")
        with suppress(TimeoutError):
            await asyncio.wait_for(self.roster.emptied(), GOODBYE_SECONDS)

    async def stop(self) -> None:
        """Close the sockets so that agents reconnect, finish the lanes, and release the lease."""
        beat_stopped = asyncio.create_task(self._stop_beat())
        self.roster.close_all("session.closed")
        await asyncio.gather(*(lane.stop(within_seconds=STOP_SECONDS) for lane in self._lanes))
        await loops.end(self._tasks)
        await self._streams.stop()
        await beat_stopped
        await self.threads.run(lease.release, self.id)
        loops.send_loop.use(None)
        self.threads.close()
        self._watch.threads.close()

    async def _stop_beat(self) -> None:
        """Stop beat in a thread: it takes up to a second, and the rest is stopped meanwhile."""
        if self._beat is not None:
            await asyncio.to_thread(self._beat.stop)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _carry_over_log(self) -> None:
        """Keep SQLite's log short in the background, so that no commit has to."""
        while True:
            await asyncio.sleep(CARRY_OVER_SECONDS)
            try:
                await self.threads.run(lease.carry_over_log)
            except DatabaseProblem:
                logger.exception("the write-ahead log could not be carried over")

    # --- Use -----------------------------------------------------------------------------------

    @property
    def waiting(self) -> dict[str, int]:
        """How many items wait in each lane."""
        return {lane.name: len(lane) for lane in self._lanes}

    def sees(self) -> bool:
        """Whether the node has read the epoch recently; otherwise it delivers nothing."""
        return self._watch.sees()

    def stores(self) -> bool:
        """Whether the database takes what this node has judged, as far as its batches tell."""
        return self._dispatcher.stores()

    def hears(self) -> bool:
        """Whether news of workers over the channel layer reach this node."""
        return self._news.hears()

    def beat_lives(self) -> bool:
        """Whether this node runs the schedule and the thread for it is alive."""
        return self._beat is not None and self._beat.lives()

    def attach(self, connection: AgentConnection, opened: Opened) -> None:
        """Begin to write the inbox to an authenticated socket."""
        older = self.roster.sessions.get(opened.resumes)
        begins = self.copies.begin(connection, opened, older)
        self.roster.add(connection)
        self._watch.look_at(connection.session)
        self._streams.begin(connection, begins)
        is_same_process = older is not None and opened.taker == older.taker
        connection.go_on_with(older.begun if older and is_same_process else opened.begun)
        self._catch_up.newcomers.put(connection.agent)

    def detach(self, connection: AgentConnection, code: str, end: SocketEnd) -> None:
        """Remove a closed socket, and have its session closed with `code`."""
        if code == "session.revoked":
            self._watch.note_closed()
        self.roster.remove(connection)
        self.cancels.forget(connection)
        self.copies.note_end(connection)
        acks = self.acks.last(connection)
        broken = end is not SocketEnd.FINAL and connection.holds_mail
        begun = connection.begun if end is SocketEnd.CUT else ()
        self.closings.lane.put(
            Closing(connection.agent, connection.session, code, acks, broken, begun)
        )

    def take_envelope(self, connection: AgentConnection, text: str) -> None:
        """Hand an envelope to the lane, which keeps the order of each sender."""
        connection.outstanding += 1
        envelope = IncomingEnvelope(connection.session, connection.agent, text)
        self.envelope_lane.put(envelope, size=len(text))

    def _resume(self) -> None:
        """Continue deliveries after a time in which the epoch could not be read."""
        self._streams.resume(self.roster.sessions.values())
