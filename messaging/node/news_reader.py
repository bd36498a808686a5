"""Reading the node's channel of the layer, and handing on what other processes say there."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from channels.layers import get_channel_layer
from django.conf import settings

from atp.wire.words import ANSWERS, CANCEL
from messaging.layer import events
from messaging.layer.news import News
from messaging.node.dispatch import BatchDispatcher
from messaging.node.roster import Roster
from messaging.node.streams import Streams
from messaging.telemetry import instruments

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5  # while the channel layer is away
PING_SECONDS = 1.0
SILENT_SECONDS = 5.0  # without a word of its own, a node's subscription counts as dead


class NewsReader:
    """Takes receipts, outcomes of batches, deliveries, cancellations and closings from the layer.

    A subscription can be there and dead, and nothing tells of that. So the node says a word on its
    own channel every second; what does not hear it for `SILENT_SECONDS` is made anew.
    """

    def __init__(
        self, channel: str, roster: Roster, streams: Streams, dispatcher: BatchDispatcher
    ) -> None:
        self._channel = channel
        self._roster = roster
        self._streams = streams
        self._dispatcher = dispatcher
        self._layer = get_channel_layer()
        # The memory of this process can't lose its connection.
        self._can_break = bool(settings.CHANNEL_LAYERS["default"]["CONFIG"].get("hosts"))
        self._heard_at = time.monotonic()

    def hears(self) -> bool:
        """Whether what workers and other nodes say reaches this node."""
        return not self._can_break or time.monotonic() - self._heard_at < SILENT_SECONDS

    async def ping(self) -> None:
        """Say a word on the own channel every second, until cancelled."""
        while self._can_break:
            await asyncio.sleep(PING_SECONDS)
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    await events.ping(self._channel)
            except Exception as problem:  # the reader notices, and says so
                logger.debug("the channel layer did not take a word: %s", problem)

    async def read(self) -> None:
        """Read until cancelled; what can't be read is logged, the rows are polled anyway."""
        while True:
            try:
                message = await self._receive()
                self._heard_at = time.monotonic()
                self.take(News.unpack(message["payload"]))
            except TimeoutError:
                logger.warning("the channel layer has been silent; subscribing anew")
                await self._forget_subscription()
            except Exception:  # Redis is away, or the message is of another version
                logger.exception("news from the channel layer could not be taken")
                await asyncio.sleep(RETRY_SECONDS)
                await self._forget_subscription()

    async def _receive(self) -> dict[str, Any]:
        """Subscribe, where that is to be done, and wait. Raises `TimeoutError` on silence."""
        async with asyncio.timeout(SILENT_SECONDS if self._can_break else None):
            message: dict[str, Any] = await self._layer.receive(self._channel)
            return message

    async def _forget_subscription(self) -> None:
        """Close the layer's connections; the next `_receive` makes them anew."""
        if not self._can_break or self.hears():
            return
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                await self._layer.flush()
        except Exception:  # it is tried again at the next silence
            logger.exception("the connections of the channel layer could not be closed")

    def take(self, news: News) -> None:
        """Hand each part of the news to the socket or the batch that it is about."""
        for session, text in news.receipts:
            self._roster.tell(session, text)
        if news.batch:
            self._dispatcher.on_news(news)
            instruments.take_tally(news.tally)
        for agent, stream, first, last, text in news.deliveries:
            if (taking := self._roster.agents.get(agent)) is not None:
                self._streams.push(taking, stream, first, last, text)
        for session, first, last, own, text in news.copies:
            if (sending := self._roster.sessions.get(session)) is not None:
                self._streams.push(sending, ANSWERS, first, last, text, own)
        for agent, text in news.cancels:
            holder = self._roster.agents.get(agent)
            if holder is not None and CANCEL in holder.features:
                holder.write_if_room(text)
        self._close_sockets(news)

    def _close_sockets(self, news: News) -> None:
        for agent in news.close_agents:
            for connection in self._roster.of_agent(agent):
                connection.close(news.close_code)
        for session in news.close_sessions:
            if (closed := self._roster.sessions.get(session)) is not None:
                closed.close(news.close_code)
