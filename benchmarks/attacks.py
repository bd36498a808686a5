"""Attacks on a hub by agents and strangers, each attack in its own process.

    python -m benchmarks.attacks flood identities/ --seconds 10

The first identity in the folder is the attacker, the second its accomplice. The others are an
audience or senders. The attacker signs its envelopes before it prints `ready` and the time begins,
so that the run measures the hub and not the attacker.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed

from atp import MessageType
from atp.errors import ATPError
from benchmarks.lean import LeanSocket, log_in_all, upgrade_request
from benchmarks.load import SEQ, Identity, connect, done_ack, load_identities

LIFETIME_SECONDS = 3_600
FLOOD_PER_SECOND = 1_500  # envelopes signed in advance; if they do not suffice, they are sent again
WAITING = 10_000  # deliveries for one recipient, the hub's limit
WALK_PER_SECOND = 5  # envelopes of each honest sender, if the recipient attacks
BROADCASTS_PER_SECOND = 200
HALF_OPEN = 1_000
PAUSE_SECONDS = 0.1  # before a stranger whose socket was closed connects again
WAVE_SECONDS = 2.0  # the same, if connecting costs the attacker more
RELOGIN_SECONDS = 0.5  # after the hub has closed its socket
LARGE_BYTES = 1_048_000  # a frame just below the hub's limit
LARGE_ENVELOPE_BYTES = 500_000  # an envelope just below it
LARGE_AT_ONCE = 50  # unauthenticated sockets that send large frames
WINDOW = 200  # envelopes of an attacker that respects the window
TCP_TEXT, TCP_CONTINUATION, TCP_PING = 0x1, 0x0, 0x9  # RFC 6455, 5.2


@dataclass(frozen=True, slots=True)
class Plan:
    """The identities and the duration of an attack, and the size of a neglected inbox."""

    identities: list[Identity]
    seconds: float
    waiting: int

    @property
    def url(self) -> str:
        """The WebSocket URL of the hub."""
        return self.identities[0].ws_url


Attack = Callable[[Plan], Coroutine[Any, Any, dict[str, int]]]


async def flood(plan: Plan) -> dict[str, int]:
    """Send as fast as possible and ignore receipts; the accomplice acknowledges everything."""
    attacker, accomplice, *_ = plan.identities
    letters = _letters(attacker, accomplice.agent, int(FLOOD_PER_SECOND * plan.seconds))
    return await _send_to_accomplice(plan, letters)


async def deaf_flood(plan: Plan) -> dict[str, int]:
    """Send as fast as possible, and never read the receipts."""
    attacker, accomplice, *_ = plan.identities
    letters = _letters(attacker, accomplice.agent, int(FLOOD_PER_SECOND * plan.seconds))
    _ready()
    async with _connected(accomplice) as taking, _connected(attacker, deaf=True) as socket:
        busy = asyncio.create_task(_acknowledge(taking))
        sent = await _send_all(socket, letters, plan.seconds)
        busy.cancel()
    return {"sent": sent}


async def slow_reader(plan: Plan) -> dict[str, int]:
    """Never read the socket of a recipient with a full inbox that gets more mail."""
    return await _neglect(plan, reads=False)


async def unread_inbox(plan: Plan) -> dict[str, int]:
    """Read but never acknowledge, as a recipient with a full inbox that gets more mail."""
    return await _neglect(plan, reads=True)


async def broadcast_flood(plan: Plan) -> dict[str, int]:
    """Broadcast as fast as possible to an audience that acknowledges."""
    attacker, *audience = plan.identities
    count = int(BROADCASTS_PER_SECOND * plan.seconds)
    letters = _letters(attacker, "*", count, kind=MessageType.BROADCAST)
    heard = 0

    def hear(socket: LeanSocket, text: bytes) -> None:
        nonlocal heard
        if seqs := SEQ.findall(text.decode()):
            heard += len(seqs)
            socket.send(done_ack(seqs))

    _ready()
    listening = await log_in_all(audience, hear)
    async with _connected(attacker) as socket:
        busy = asyncio.create_task(_discard(socket))
        sent = await _send_all(socket, letters, plan.seconds)
        busy.cancel()
    for one in listening:
        one.abort()
    return {"sent": sent, "heard": heard}


async def half_open(plan: Plan) -> dict[str, int]:
    """Open a thousand sockets that never answer the challenge; replace those that are closed."""
    return await _crowd(plan, lambda _: Stranger(upgrade_request(plan.url)))


async def silent_connections(plan: Plan) -> dict[str, int]:
    """Open a thousand connections that send half a request, or nothing."""
    texts = (b"", b"GET /ws/agents/ HTTP/1.1\r\nHost: x\r\n")
    return await _crowd(plan, lambda n: Stranger(texts[n % 2]))


async def large_frames(plan: Plan) -> dict[str, int]:
    """Send 1 MiB instead of a proof, from many strangers."""
    frame = _header(TCP_TEXT, LARGE_BYTES, final=True) + b"x" * LARGE_BYTES
    stranger = partial(Stranger, upgrade_request(plan.url), frame)
    return await _crowd(plan, lambda _: stranger(), size=LARGE_AT_ONCE)


async def half_sent_frames(plan: Plan) -> dict[str, int]:
    """Send a frame of a MiB without its last byte, from a thousand strangers."""
    frame = _header(TCP_TEXT, LARGE_BYTES, final=True) + b"x" * (LARGE_BYTES - 1)
    stranger = partial(Stranger, upgrade_request(plan.url), frame)
    return await _crowd(plan, lambda _: stranger(), pause=WAVE_SECONDS)


async def large_envelopes(plan: Plan) -> dict[str, int]:
    """Send only envelopes of the largest allowed size; the accomplice acknowledges them."""
    attacker, accomplice, *_ = plan.identities
    letters = _letters(attacker, accomplice.agent, 100, filler=LARGE_ENVELOPE_BYTES)
    return await _send_to_accomplice(plan, letters)


async def fragments(plan: Plan) -> dict[str, int]:
    """Send a message that never ends, in empty fragments, which add nothing to its size."""
    some = _header(TCP_CONTINUATION, 0, final=False) * 1_000
    return await _raw_flood(plan, _header(TCP_TEXT, 0, final=False), some)


async def pings(plan: Plan) -> dict[str, int]:
    """Send pings, and never read the pongs."""
    some = (_header(TCP_PING, 125, final=True) + b"x" * 125) * 100
    return await _raw_flood(plan, b"", some)


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        flood, deaf_flood, slow_reader, unread_inbox, broadcast_flood, half_open,
        silent_connections, large_frames, half_sent_frames, large_envelopes, fragments, pings,
    )
}  # fmt: skip


# --- Parts of attacks ------------------------------------------------------------------------


class Stranger(asyncio.Protocol):
    """A connection that sends `first`, then `then` after the first answer, then nothing."""

    def __init__(self, first: bytes, then: bytes = b"") -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._first, self._then = first, then

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        if self._then:
            self.transport.write(self._then)
            self._then = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


async def _crowd(
    plan: Plan,
    stranger: Callable[[int], Stranger],
    *,
    size: int = HALF_OPEN,
    pause: float = PAUSE_SECONDS,
) -> dict[str, int]:
    """Keep many strangers connected; replace each after a pause when the hub closes it."""
    parts = urlsplit(plan.url)
    assert parts.hostname is not None
    assert parts.port is not None
    host, port = parts.hostname, parts.port
    until = time.perf_counter() + plan.seconds
    loop = asyncio.get_running_loop()
    opened = 0

    async def hold(n: int) -> None:
        nonlocal opened
        while (left := until - time.perf_counter()) > 0:
            with contextlib.suppress(OSError, TimeoutError):
                _, one = await loop.create_connection(partial(stranger, n), host, port)
                opened += 1
                try:
                    await asyncio.wait_for(asyncio.shield(one.closed), left)
                finally:
                    one.transport.abort()
            await asyncio.sleep(pause)

    _ready()
    await asyncio.gather(*map(hold, range(size)))
    return {"opened": opened}


def _ready() -> None:
    """Print that the time begins, for the process that waits."""
    print("ready", flush=True)


def _letters(
    sender: Identity,
    target: str,
    count: int,
    *,
    kind: MessageType = MessageType.NOTIFICATION,
    filler: int = 300,
) -> list[str]:
    sign = partial(
        sender.sign, target, filler="x" * filler, kind=kind, lifetime_seconds=LIFETIME_SECONDS
    )
    return [sign()[1].decode() for _ in range(count)]


async def _send_to_accomplice(plan: Plan, letters: list[str]) -> dict[str, int]:
    """Send as fast as possible, while the accomplice acknowledges every delivery."""
    attacker, accomplice, *_ = plan.identities
    _ready()
    async with _connected(accomplice) as taking, _connected(attacker) as socket:
        busy = [asyncio.create_task(_acknowledge(taking)), asyncio.create_task(_discard(socket))]
        sent = await _send_all(socket, letters, plan.seconds)
        for task in busy:
            task.cancel()
    return {"sent": sent}


async def _send_all(socket: Any, letters: list[str], seconds: float) -> int:
    until = time.perf_counter() + seconds
    sent = 0
    with contextlib.suppress(ConnectionClosed, TimeoutError):
        async with asyncio.timeout(seconds):
            for letter in _over_and_over(letters):
                await socket.send(letter)
                sent += 1
                if sent % 64 == 0:
                    await asyncio.sleep(0)
                if time.perf_counter() > until:
                    break
    return sent


async def _neglect(plan: Plan, *, reads: bool) -> dict[str, int]:
    """Fill an inbox from ten senders before the time begins; then go on sending slowly."""
    target, *senders = plan.identities[:11]
    full = [_letters(sender, target.agent, plan.waiting // len(senders)) for sender in senders]
    async with contextlib.AsyncExitStack() as opened:
        sockets = [await opened.enter_async_context(_connected(sender)) for sender in senders]
        await asyncio.gather(*map(_send_politely, sockets, full))
        more = [_letters(s, target.agent, int(WALK_PER_SECOND * plan.seconds)) for s in senders]
        _ready()
        connected = await opened.enter_async_context(_connected(target, deaf=not reads))
        reading = asyncio.create_task(_discard(connected)) if reads else None
        walk = partial(_send_politely, pause=1 / WALK_PER_SECOND)
        tallies = await asyncio.gather(*map(walk, sockets, more))
        if reading is not None:
            reading.cancel()
    return _sum(tallies)


async def _send_politely(socket: Any, letters: list[str], *, pause: float = 0.0) -> dict[str, int]:
    """Send each envelope once, within the window; count the receipts by code or status."""
    room = asyncio.Semaphore(WINDOW)
    tally = {"sent": len(letters)}

    async def send() -> None:
        for letter in letters:
            await room.acquire()
            await socket.send(letter)
            await asyncio.sleep(pause)

    sending = asyncio.create_task(send())
    left = len(letters)
    while left:
        for frame in _frames(await socket.recv()):
            if frame["type"] == "receipt":
                word = frame.get("code") or frame["status"]
                tally[word] = tally.get(word, 0) + 1
                room.release()
                left -= 1
    await sending
    return tally


async def _acknowledge(socket: Any) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            if seqs := SEQ.findall(message):
                await socket.send(done_ack(seqs).decode())


async def _discard(socket: Any) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for _ in socket:
            pass


@contextlib.asynccontextmanager
async def _connected(identity: Identity, *, deaf: bool = False) -> AsyncIterator[Any]:
    """Yield an authenticated socket; with `deaf`, even the library does not read it any more."""
    socket = await connect(identity)
    if deaf:
        socket.transport.pause_reading()
        socket.transport.resume_reading = lambda: None
    try:
        yield socket
    finally:
        socket.transport.abort()  # a closing handshake could take long


async def _raw_flood(plan: Plan, first: bytes, some: bytes) -> dict[str, int]:
    """Write raw frames to an authenticated socket until it is closed; then open the next."""
    _ready()
    until = time.perf_counter() + plan.seconds
    written = 0
    while time.perf_counter() < until:
        with contextlib.suppress(ConnectionClosed, OSError, ATPError):
            async with _connected(plan.identities[0], deaf=True) as socket:
                written += await _write_raw(socket, first, some, until)
        await asyncio.sleep(RELOGIN_SECONDS)
    return {"bytes": written}


async def _write_raw(socket: Any, first: bytes, some: bytes, until: float) -> int:
    loop = asyncio.get_running_loop()
    written = 0
    with contextlib.suppress(TimeoutError, OSError), _descriptor(socket) as descriptor:
        await asyncio.wait_for(loop.sock_sendall(descriptor, first), until - time.perf_counter())
        while (left := until - time.perf_counter()) > 0:
            await asyncio.wait_for(loop.sock_sendall(descriptor, some), left)
            written += len(some)
    return written


def _descriptor(socket: Any) -> Any:
    """Return a second handle of the connection, to write without the library."""
    return socket.transport.get_extra_info("socket").dup()


def _header(opcode: int, length: int, *, final: bool) -> bytes:
    """Return the header of a frame; a mask of zeroes changes nothing (RFC 6455, 5.3)."""
    first = bytes([(0x80 if final else 0) | opcode])
    if length < 126:
        size = bytes([0x80 | length])
    elif length < 65_536:
        size = bytes([0x80 | 126]) + struct.pack("!H", length)
    else:
        size = bytes([0x80 | 127]) + struct.pack("!Q", length)
    return first + size + bytes(4)


def _frames(message: str | bytes) -> list[dict[str, Any]]:
    value = json.loads(message)
    return value if isinstance(value, list) else [value]


def _over_and_over(letters: list[str]) -> Iterator[str]:
    while True:
        yield from letters


def _sum(tallies: list[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for tally in tallies:
        for word, count in tally.items():
            total[word] = total.get(word, 0) + count
    return total


def main() -> None:
    """Run one attack; print `ready` when it begins, and its result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("identities", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--waiting", type=int, default=WAITING, help="for a neglected inbox")
    options = parser.parse_args()
    attack = ATTACKS[options.attack]
    plan = Plan(load_identities(options.identities), options.seconds, options.waiting)
    result = asyncio.run(attack(plan))
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
