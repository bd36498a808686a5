"""Which way leads to a hub: no proxy to this machine, a typed error for one of no use."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from atp import ATPClient, IAgentIdentity, PrivateKey, WebSocketTransport
from atp.errors import SessionTransport
from atp.transports.addresses import AddressError, proxy_for, split_address
from registry.agents.actions import issue_enrolment_token
from tests.conftest import LiveHub
from tests.registry.agent_cast import OFFICER, register
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld
from tests.sources import ROOT

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
HUB = "https://hub.example/"


@pytest.fixture(autouse=True)
def no_proxy_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@dataclass
class Listener:
    port: int
    heard: list[bytes] = field(default_factory=list)


@contextmanager
def listener() -> Iterator[Listener]:
    """A proxy that records what it receives and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found, done = Listener(server.getsockname()[1]), threading.Event()
        server.settimeout(0.1)

        def serve() -> None:
            while not done.is_set():
                with suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(5)
                        found.heard.append(connection.recv(4096))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield found
        finally:
            done.set()
            thread.join(10)


def enroll(hub: str, folder: Path, token: str, **proxies: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atp.cli", "enroll", "--hub", hub, "--agent", token.split(":")[0]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **proxies},
        input=token.split(":")[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_keeps_the_token_from_a_proxy(hub: LiveHub, tmp_path: Path) -> None:
    agent = register("proxied").id
    with listener() as proxy:
        done = enroll(
            hub.http_url,
            tmp_path,
            f"{agent}:{issue_enrolment_token(agent, actor=OFFICER).text}",
            HTTP_PROXY=f"http://127.0.0.1:{proxy.port}",
            ALL_PROXY=f"http://127.0.0.1:{proxy.port}",
        )
    assert done.returncode == 0, done.stderr
    assert not proxy.heard


def test_it_says_through_which_proxy_a_hub_was_not_reached(tmp_path: Path) -> None:
    with listener() as proxy:
        done = enroll(
            HUB, tmp_path, "alice:x", HTTPS_PROXY=f"http://ann:secret@127.0.0.1:{proxy.port}"
        )
    assert done.returncode == 1
    assert f"through the proxy 127.0.0.1:{proxy.port} of HTTPS_PROXY" in done.stderr
    assert "secret" not in done.stderr
    assert proxy.heard[0].startswith(b"CONNECT hub.example:443")


async def test_it_says_so_of_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener() as proxy:
        monkeypatch.setenv("https_proxy", f"ann:secret@127.0.0.1:{proxy.port}")
        transport = WebSocketTransport("wss://hub.example/ws/agents/", hub_id="hub-1")
        client = ATPClient(
            IAgentIdentity("alice"), None, PrivateKey.generate(), transport=transport
        )
        with pytest.raises(SessionTransport, match=r"the proxy 127\.0\.0\.1") as caught:
            await client.connect()
    assert "secret" not in str(caught.value)
    assert proxy.heard[0].startswith(b"CONNECT hub.example:443")


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    "text",
    [
        "socks5://ann:secret@127.0.0.1:1080",
        "ftp://ann:secret@proxy.example",
        "http://ann:secret@proxy..example:3128",
        "http://ann:secret@proxy.example:99999",
        "http://",
        "http://secret@127.0.0.1:1",
        "http://ann:secret@127.0.0.1:1/path",
        "http://ann:secret@127.0.0.1:1?query",
        "http://ann:secret@127.0.0.1:1\r\nHost: x",
    ],
)
def test_rejects_a_proxy_that_it_cannot_use(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SessionTransport, match=name) as caught:
        proxy_for(HUB)
    assert "NO_PROXY" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_it_takes_host_and_port_for_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    found = proxy_for(HUB)
    assert found is not None
    assert found.url == "http://proxy.example:3128"


def test_it_goes_straight_where_no_proxy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "hub.example")
    assert proxy_for(HUB) is None


@pytest.mark.parametrize(
    "text",
    [
        "https://hub..example",
        "https://hub.example:99999",
        "https://hub.example:0",
        "https://hub.example:port",
        f"https://{'a' * 64}.example",
        "https://",
        "https://[::1",
    ],
)
def test_rejects_an_address_that_cannot_be_looked_up(text: str, tmp_path: Path) -> None:
    with pytest.raises(SessionTransport):
        split_address(text)
    with pytest.raises(SessionTransport):
        WebSocketTransport(text.replace("https", "wss"), hub_id="hub-1")
    done = enroll(text, tmp_path, "alice:x")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "address",
    [
        None,
        5,
        b"ws://127.0.0.1/ws/agents/",
        "",
        "ws://ann:secret@127.0.0.1/ws/agents/",
        "ws://127.0.0.1/ws/agents/#secret",
        "ws://127.0.0.1/ws/agents/\x00",
        "ws://127.0.0.1\n/ws/agents/",
        " ws://127.0.0.1/ws/agents/",
        "ws://127.0.0.1/ws agents/",
    ],
)
def test_rejects_odd_addresses_with_a_typed_error(address: Any) -> None:
    with pytest.raises(AddressError) as caught:
        WebSocketTransport(address, hub_id="hub-1")
    assert isinstance(caught.value, SessionTransport)
    assert isinstance(caught.value, ValueError)
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


async def test_it_goes_on_reconnecting_after_an_error_of_another_type(
    socket_world: SocketWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a library raises beside its own errors does not end the agent in silence."""
    hub = socket_world.hub
    transport = WebSocketTransport(hub.url, hub_id=hub.id, hub_key=hub.key.public)
    key = hub.enrol("alice")
    async with ATPClient(IAgentIdentity("alice"), None, key, transport=transport) as alice:
        tries: list[int] = []
        connect = transport.connect

        async def fail_once(login: Any) -> Any:
            tries.append(1)
            if len(tries) == 1:
                raise UnicodeError("label empty or too long")
            return await connect(login)

        monkeypatch.setattr(transport, "connect", fail_once)
        await hub.kill()
        await hub.start()
        await until(lambda: len(tries) > 1 and alice.get_trust_status()["connected"])
    assert "label empty or too long" in caplog.text
