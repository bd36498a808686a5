"""The login over a socket: who proves what to whom, and what is refused."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import serve

from atp import ATPClient, IAgentIdentity, PrivateKey, WebSocketTransport
from atp.errors import (
    KeyMissing,
    KeyUnacceptable,
    MalformedDocument,
    SessionAuthentication,
    SessionTransport,
    SignatureAudience,
)
from tests.sdk.fake_hub import FakeHub
from tests.sdk.worlds import SocketWorld


def client(hub: FakeHub, key: PrivateKey, **changes: object) -> ATPClient:
    options = {"hub_id": hub.id, "hub_key": hub.key.public, **changes}
    transport = WebSocketTransport(hub.url, **options)  # type: ignore[arg-type]
    return ATPClient(IAgentIdentity("alice"), None, key, transport=transport)


async def test_it_is_welcomed_with_what_the_hub_says_of_it(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    async with client(hub, hub.enrol("alice", level="certified")) as alice:
        status = alice.get_trust_status()
    assert status["level"] == "certified"
    assert status["score"] == hub.score_of("alice") > 0
    assert status["hub"] == hub.id
    assert hub.logins == {"alice": 1}


async def test_rejects_another_hub_than_the_one_enrolled_at(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice = client(hub, hub.enrol("alice"), hub_id="hub-elsewhere")
    with pytest.raises(SignatureAudience) as caught:
        await alice.connect()
    assert hub.id in str(caught.value)
    assert not hub.logins


async def test_rejects_a_hub_that_cannot_prove_itself(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice = client(hub, hub.enrol("alice"), hub_key=PrivateKey.generate().public)
    with pytest.raises(SessionAuthentication):
        await alice.connect()
    assert not alice.get_trust_status()["connected"]


async def test_it_relies_on_tls_where_the_hubs_key_is_not_known(
    socket_world: SocketWorld,
) -> None:
    hub = socket_world.hub
    async with client(hub, hub.enrol("alice"), hub_key=None) as alice:
        assert alice.get_trust_status()["connected"]


async def test_it_says_where_no_hub_runs(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice = client(hub, hub.enrol("alice"))
    await hub.kill()
    with pytest.raises(SessionTransport) as caught:
        await alice.connect()
    assert hub.url in str(caught.value)
    await hub.start()


async def test_it_says_that_the_path_is_not_a_hubs() -> None:
    async def refuse(*_: object) -> None: ...

    def answer(connection: Any, _: object) -> Any:
        return connection.respond(HTTPStatus.FORBIDDEN, "")

    async with serve(refuse, "127.0.0.1", 0, process_request=answer) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        transport = WebSocketTransport(f"ws://127.0.0.1:{port}/ws/agent/", hub_id="hub-1")
        alice = ATPClient(IAgentIdentity("alice"), None, PrivateKey.generate(), transport=transport)
        with pytest.raises(SessionTransport, match="a hub's address ends in /ws/agents/"):
            await alice.connect()


async def test_it_says_that_the_hub_has_no_tls() -> None:
    def answer_plainly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # as uvicorn does
        writer.close()

    async with await asyncio.start_server(answer_plainly, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport = WebSocketTransport(f"wss://127.0.0.1:{port}/ws/agents/", hub_id="hub-1")
        alice = ATPClient(IAgentIdentity("alice"), None, PrivateKey.generate(), transport=transport)
        with pytest.raises(SessionTransport, match="ws:// instead of wss://"):
            await alice.connect()


@pytest.mark.parametrize(
    "url", ["ws://hub.example/ws/agents/", "http://127.0.0.1/", "ws://", "hub", "ws://[1"]
)
def test_rejects_addresses_that_are_not_safe_or_none(url: str) -> None:
    with pytest.raises(SessionTransport):
        WebSocketTransport(url, hub_id="hub-1")


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:8000/", "ws://[::1]:8000/", "ws://localhost/", "wss://hub.example/"]
)
def test_it_takes_tls_or_the_loopback(url: str) -> None:
    assert WebSocketTransport(url, hub_id="hub-1").url == url


def test_rejects_string_keys_on_a_network() -> None:
    transport = WebSocketTransport("wss://hub.example/", hub_id="hub-1")
    with pytest.raises(KeyUnacceptable) as caught:
        ATPClient(IAgentIdentity("alice"), "verified", "my-private-key", transport=transport)
    assert "my-private-key" not in str(caught.value)
    assert "atp keygen" in str(caught.value)
    with pytest.raises(KeyMissing):
        ATPClient(IAgentIdentity("alice"), "verified", transport=transport)


async def test_it_keeps_keys_and_proofs_out_of_the_log(
    socket_world: SocketWorld, caplog: pytest.LogCaptureFixture
) -> None:
    hub = socket_world.hub
    key = hub.enrol("alice")
    with caplog.at_level(logging.DEBUG, logger="atp"):
        async with client(hub, key) as alice:
            await alice.broadcast({"text": "a secret"})
    assert "eyJ" not in caplog.text
    assert "a secret" not in caplog.text


def test_rejects_a_level_that_is_none() -> None:
    with pytest.raises(MalformedDocument, match="use one of: sandboxed, unverified, verified"):
        ATPClient(IAgentIdentity("alice"), "trusted", PrivateKey.generate())
