"""Reading the node's channel of the layer, and handing on what other processes say there."""

from __future__ import annotations

import asyncio
import logging

from channels.layers import get_channel_layer

from messaging.layer.news import News
from messaging.node.dispatch import BatchDispatcher
from messaging.node.roster import Roster
from messaging.node.streams import Streams
from messaging.telemetry import instruments

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.1  # while the channel layer is away


class NewsReader:
    """Takes receipts, outcomes of batches, deliveries and closings from the channel layer."""

    def __init__(
        self, channel: str, roster: Roster, streams: Streams, dispatcher: BatchDispatcher
    ) -> None:
        self._channel = channel
        self._roster = roster
        self._streams = streams
        self._dispatcher = dispatcher

    async def read(self) -> None:
        """Read until cancelled; what can't be read is logged, the rows are polled anyway."""
        layer = get_channel_layer()
        while True:
            try:
                message = await layer.receive(self._channel)
                self.take(News.unpack(message["payload"]))
            except Exception:  # Redis is away, or the message is of another version
                logger.exception("news from the channel layer could not be taken")
                await asyncio.sleep(RETRY_SECONDS)

    def take(self, news: News) -> None:
        """Hand each part of the news to the socket or the batch that it is about."""
        for session, text in news.receipts:
            self._roster.tell(session, text)
        if news.batch:
            self._dispatcher.on_news(news)
            instruments.take_tally(news.tally)
        agents = self._roster.agents
        for agent, stream, first, last, text in news.deliveries:
            if (connection := agents.get(agent)) is not None:
                self._streams.push(connection, stream, first, last, text)
        self._close_sockets(news)

    def _close_sockets(self, news: News) -> None:
        for agent in news.close_agents:
            if (connection := self._roster.agents.get(agent)) is not None:
                connection.close(news.close_code)
        for session in news.close_sessions:
            if (connection := self._roster.sessions.get(session)) is not None:
                connection.close(news.close_code)
