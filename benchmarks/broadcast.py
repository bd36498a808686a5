"""A broadcast to all connected agents: milliseconds from the sender's send to the last socket.

    python -m benchmarks.broadcast identities/ --ports 8000,8001

The first identity sends. The others are spread over the nodes, listen and acknowledge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from pathlib import Path

import uvloop

from atp import MessageType
from benchmarks.lean import LeanSocket, log_in, log_in_all, spread
from benchmarks.load import Identity, done_ack, load_identities

ROUNDS = 5
PATIENCE_SECONDS = 30.0
PAUSE_SECONDS = 1.0  # between two broadcasts, so that acks are done
SEQ = re.compile(rb'"seq":(\d+),"stream":"mail","type":"delivery"')


class Audience:
    """The receiving agents: counts those that have the current broadcast, and acknowledges it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._message_id = b""
        self._left = 0
        self._complete = asyncio.Event()

    def expect(self, message_id: str) -> None:
        """Begin to count the agents that get this broadcast."""
        self._message_id, self._left = message_id.encode(), self._size
        self._complete.clear()

    async def complete(self) -> None:
        """Wait until every agent has the broadcast. Raises `TimeoutError`."""
        await asyncio.wait_for(self._complete.wait(), PATIENCE_SECONDS)

    def hear(self, socket: LeanSocket, text: bytes) -> None:
        """Take a message that `socket` received: count and acknowledge its delivery."""
        seqs = SEQ.findall(text)
        if not seqs:
            return
        if self._message_id in text:
            self._left -= 1
            if not self._left:
                self._complete.set()
        socket.send(done_ack(seqs))


async def run(sender: Identity, others: list[Identity]) -> dict[str, list[float]]:
    audience = Audience(len(others))
    listening = await log_in_all(others, audience.hear)
    sending = await log_in(sender)
    took = []
    for _ in range(ROUNDS):
        message_id, letter = sender.sign("*", filler="x" * 100, kind=MessageType.BROADCAST)
        audience.expect(message_id)
        started = time.perf_counter()
        sending.send(letter)
        await audience.complete()
        took.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(PAUSE_SECONDS)
    for socket in (sending, *listening):
        socket.abort()
    return {"milliseconds": took}


def main() -> None:
    """Send the broadcasts and print the milliseconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("identities", type=Path, help="the folder that benchmarks.provision wrote")
    parser.add_argument("--ports", required=True, help="of the nodes, comma-separated")
    options = parser.parse_args()
    ports = [int(port) for port in options.ports.split(",")]
    sender, *others = spread(load_identities(options.identities), ports)
    json.dump(uvloop.run(run(sender, others)), sys.stdout)


if __name__ == "__main__":
    main()
