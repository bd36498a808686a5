"""A minimal WebSocket of an agent (RFC 6455), so that one process can hold very many.

A client library costs as much CPU as the hub does. A process that holds thousands of sockets, or
opens hundreds a second, must cost a small part of that. The handshake is the SDK's own.
"""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import struct
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast
from urllib.parse import urlsplit

from atp.agent.handshake import Handshake
from atp.wire.frames import SUBPROTOCOL
from benchmarks.load import Identity

LOGIN_SECONDS = 60.0
AT_ONCE = 128  # logins in progress, as after the failure of a node
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
FINAL, MASKED = 0x80, 0x80
NO_MASK = bytes(4)  # a mask of zeroes; masks protect proxies, and there are none here

OnText = Callable[["LeanSocket", bytes], None]


class LoginFailed(Exception):
    """A login that the hub refused."""


class LeanSocket(asyncio.Protocol):
    """The socket of one agent; after the login it passes each message to `on_text`."""

    __slots__ = (
        "_buffer", "_handshake", "_on_text", "_take", "_transport", "admitted", "close_code",
        "closed", "closed_at", "identity",
    )  # fmt: skip

    def __init__(self, identity: Identity, on_text: OnText | None) -> None:
        loop = asyncio.get_running_loop()
        self.identity = identity
        self.admitted: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.closed_at = 0.0  # by `time.monotonic`, which all processes of a machine share
        self.close_code = 0
        self._on_text = on_text
        self._buffer = b""
        self._take = self._take_response
        self._handshake: Handshake | None = Handshake(
            agent=identity.agent,
            key=identity.key,
            hub_id=identity.hub,
            hub_key=None,
            url=identity.ws_url,
            nonce=uuid.uuid4().hex,
        )

    def send(self, text: bytes) -> None:
        """Send a text message."""
        self._write(TEXT, text)

    def abort(self) -> None:
        """Close the connection without a close frame."""
        self._transport.abort()

    # --- What asyncio calls --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(upgrade_request(self.identity.ws_url))

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._take():
            pass

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the hub hung up")
        self.closed_at = self.closed_at or time.monotonic()
        if not self.closed.done():
            self.closed.set_result(None)

    # --- What comes in -------------------------------------------------------------------------

    def _take_response(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            self._fail(f"no WebSocket: {head[:80]!r}")
            self.abort()
            return False
        self._buffer, self._take = rest, self._take_frame
        return True

    def _take_frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        start, length = 2, buffer[1] & 0x7F
        if length > 125:
            form = ">H" if length == 126 else ">Q"
            start += struct.calcsize(form)
            if len(buffer) < start:
                return False
            (length,) = struct.unpack_from(form, buffer, 2)
        if len(buffer) < start + length:
            return False
        self._buffer = buffer[start + length :]
        self._on_frame(buffer[0] & 0x0F, buffer[start : start + length])
        return True

    def _on_frame(self, kind: int, content: bytes) -> None:
        if kind == PING:
            self._write(PONG, content)
        elif kind == CLOSE:
            self.closed_at = time.monotonic()
            self.close_code = struct.unpack(">H", content[:2])[0] if content else 0
            self._transport.close()
        elif self._handshake is not None:
            self._log_in(content)
        elif self._on_text is not None:
            self._on_text(self, content)

    def _log_in(self, content: bytes) -> None:
        """Answer the challenge; then take the welcome, or the error of a refusal."""
        assert self._handshake is not None
        if b'"challenge"' in content:
            self.send(self._handshake.answer(content, now=time.time()))
        elif b'"welcome"' in content:
            self._handshake = None
            self.admitted.set_result(None)
        else:
            self._fail(content.decode())

    def _fail(self, why: str) -> None:
        if not self.admitted.done():
            self.admitted.set_exception(LoginFailed(f"{self.identity.agent}: {why}"))

    def _write(self, kind: int, content: bytes) -> None:
        size = len(content)
        if size < 126:
            head = bytes((FINAL | kind, MASKED | size))
        else:
            head = struct.pack(">BBH", FINAL | kind, MASKED | 126, size)
        self._transport.write(head + NO_MASK + content)


def upgrade_request(url: str) -> bytes:
    """Return the request that opens a WebSocket (RFC 6455, 4.1)."""
    parts = urlsplit(url)
    return (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        f"{base64.b64encode(os.urandom(16)).decode()}\r\n"
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    ).encode()


async def log_in(identity: Identity, on_text: OnText | None = None) -> LeanSocket:
    """Log in and return the socket. Raises `LoginFailed`, `OSError` or `TimeoutError`."""
    parts = urlsplit(identity.ws_url)
    assert parts.hostname is not None
    assert parts.port is not None
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LOGIN_SECONDS):
        _, socket = await loop.create_connection(
            lambda: LeanSocket(identity, on_text), parts.hostname, parts.port
        )
        await socket.admitted
    return socket


async def log_in_all(
    identities: Sequence[Identity], on_text: OnText | None = None, *, at_once: int = AT_ONCE
) -> list[LeanSocket]:
    """Log in all agents, at most `at_once` at a time; return their sockets in order."""
    take_all_descriptors()
    slots = asyncio.Semaphore(at_once)

    async def one(identity: Identity) -> LeanSocket:
        async with slots:
            return await log_in(identity, on_text)

    return await asyncio.gather(*(one(identity) for identity in identities))


def spread(identities: Sequence[Identity], ports: Sequence[int]) -> list[Identity]:
    """Return the same agents with their URLs spread over the ports of the nodes."""
    return [
        replace(one, ws_url=_at_port(one.ws_url, ports[n % len(ports)]))
        for n, one in enumerate(identities)
    ]


def take_all_descriptors() -> None:
    """Raise the limit of file descriptors from the usual 1,024 to what the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _at_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.hostname}:{port}").geturl()
