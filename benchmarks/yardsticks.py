"""The yardsticks: Ed25519 on one core, and a bare echo server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import uvicorn
import websockets
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MEASURE_SECONDS = 2.0
ECHO_BYTES = 800
ECHO_CLIENTS = 8
ECHO_IN_FLIGHT = 32


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """The rates of this machine per second, measured at the start of the run."""

    ed25519: float  # signatures verified on one core, for a second of real time
    ed25519_cpu: float  # the same for a second of CPU time, which other programs disturb less
    echo: float  # messages through a bare ASGI server


def measure_yardsticks() -> Yardsticks:
    """Measure all yardsticks; takes some seconds."""
    return Yardsticks(*ed25519_verify(), asgi_echo())


def rate(work: Callable[[], object], *, seconds: float = MEASURE_SECONDS, chunk: int = 50) -> float:
    """Return how often this thread can do `work` in a second."""
    done = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        for _ in range(chunk):
            work()
        done += chunk
    return done / elapsed


def ed25519_verify() -> tuple[float, float]:
    """Return how many signatures `cryptography` verifies, per second and per CPU second."""
    key = Ed25519PrivateKey.generate()
    message = b"x" * 800
    signature = key.sign(message)
    public = key.public_key()
    spent = time.process_time()
    elapsed = time.perf_counter()
    per_second = rate(lambda: public.verify(signature, message))
    share = (time.process_time() - spent) / (time.perf_counter() - elapsed)
    return per_second, per_second / share


def asgi_echo() -> float:
    """Return messages of 800 bytes that a bare ASGI application on uvicorn echoes in a second."""
    listener = socket.create_server(("127.0.0.1", 0))
    with closing(listener):
        config = uvicorn.Config(
            _echo, ws="websockets-sansio", ws_per_message_deflate=False, log_level="error"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        try:
            return asyncio.run(_echo_load(f"ws://127.0.0.1:{port}/"))
        finally:
            server.should_exit = True
            thread.join()


async def _echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def _echo_load(url: str) -> float:
    counts = await asyncio.gather(*(_echo_client(url) for _ in range(ECHO_CLIENTS)))
    return sum(counts) / MEASURE_SECONDS


async def _echo_client(url: str) -> int:
    text = "x" * ECHO_BYTES
    async with websockets.connect(url, compression=None) as socket_:
        for _ in range(ECHO_IN_FLIGHT):
            await socket_.send(text)
        count = 0
        until = time.perf_counter() + MEASURE_SECONDS
        while time.perf_counter() < until:
            await socket_.recv()
            await socket_.send(text)
            count += 1
        return count
