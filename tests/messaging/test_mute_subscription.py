"""A subscription to Redis that is there and dead: the node notices and subscribes anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from channels.layers import channel_layers, get_channel_layer
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.conf import settings

from atp_site import engines
from messaging.layer import loops
from messaging.layer.news import News
from messaging.node import news_reader
from messaging.node.news_reader import NewsReader
from tests.crash.proxy import Proxy
from tests.services import PrivateRedis
from tests.waits import happens


class Told(NewsReader):
    """Notes what it is told."""

    def __init__(self, channel: str) -> None:
        super().__init__(channel, None, None, None)  # type: ignore[arg-type]  # nobody is told
        self.heard = asyncio.Event()

    def take(self, news: News) -> None:
        if news.status == "word":
            self.heard.set()


@pytest.fixture(scope="module")
def redis() -> Iterator[PrivateRedis]:
    with PrivateRedis() as redis:
        yield redis


@pytest.fixture
def proxy(redis: PrivateRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between this process's channel layer and Redis; a live hub keeps the layer that it has."""
    with Proxy([redis.port], seed=1) as proxy:
        config = engines.channel_layer(f"redis://127.0.0.1:{proxy.port}/0")["CONFIG"]
        layer = RedisPubSubChannelLayer(**config)
        monkeypatch.setitem(settings.CHANNEL_LAYERS["default"], "CONFIG", config)
        monkeypatch.setitem(channel_layers.backends, "default", layer)
        yield proxy


@pytest.fixture
async def reader(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Told]:
    monkeypatch.setattr(news_reader, "PING_SECONDS", 0.1)
    monkeypatch.setattr(news_reader, "SILENT_SECONDS", 1.0)
    reader = Told(await get_channel_layer().new_channel("node"))
    tasks = [asyncio.create_task(work) for work in (reader.read(), reader.ping())]
    yield reader
    await loops.end(tasks)
    await get_channel_layer().flush()


async def say_a_word(reader: Any) -> None:
    """As a worker does, over a connection of its own."""
    async with asyncio.timeout(10):
        message = {"type": "node.news", "payload": News(status="word").pack()}
        await get_channel_layer().send(reader._channel, message)


async def until(holds: Any, what: str) -> None:
    for _ in range(200):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(what)


async def test_it_hears_again_after_its_connections_were_forgotten(
    proxy: Proxy, reader: Told
) -> None:
    await say_a_word(reader)
    await happens(reader.heard, "a word")
    reader.heard.clear()

    proxy.forget()
    await until(lambda: not reader.hears(), "it does not notice the silence")
    await until(reader.hears, "it did not subscribe anew")
    await say_a_word(reader)
    await happens(reader.heard, "a word over the new subscription")


async def test_it_hears_again_after_redis_took_no_connection_for_a_while(
    proxy: Proxy, reader: Told, redis: PrivateRedis
) -> None:
    redis.stop()
    await until(lambda: not reader.hears(), "it does not notice the silence")
    await asyncio.to_thread(redis.start)
    await until(reader.hears, "it did not subscribe anew")
    await say_a_word(reader)
    await happens(reader.heard, "a word over the new subscription")


async def test_it_hears_again_after_redis_was_mute_for_a_while(proxy: Proxy, reader: Told) -> None:
    proxy.hush()
    await until(lambda: not reader.hears(), "it does not notice the silence")
    await asyncio.sleep(2.5)
    proxy.speak()
    await until(reader.hears, "it did not subscribe anew")
    await say_a_word(reader)
    await happens(reader.heard, "a word over the new subscription")


async def test_a_layer_in_memory_is_not_watched() -> None:
    reader = Told("nowhere")
    reader._heard_at = 0.0
    assert reader.hears()
