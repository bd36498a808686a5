"""Measure one agent that sends to another, each an SDK in a process of its own.

Nothing else uses the hub meanwhile. The receiver's handler does nothing, so its acks go after the
handler.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from atp import ATPClient

SECONDS = 6.0
WARM_UP_SECONDS = 1.5  # until the caches are filled
LAST_SECONDS = 30.0  # the longest wait for what was sent to be handled
TIMEOUT_MS = 30_000


async def send(sending: Path, target: str, kind: str, in_flight: int, seconds: float) -> int:
    """Keep `in_flight` messages of a kind under way for `seconds`; return how many came through.

    A notification came through when its receipt is there, a request when its answer is.
    """
    async with ATPClient.from_identity_file(sending) as client:
        method = client.send_request if kind == "request" else client.send_notification
        counts = {"sent": 0, "counted": 0}
        begin = time.perf_counter() + WARM_UP_SECONDS
        end = begin + seconds

        async def go_on() -> None:
            while (now := time.perf_counter()) < end:
                await method(target, {"n": counts["sent"]}, {"timeout": TIMEOUT_MS})
                counts["sent"] += 1
                counts["counted"] += begin <= now

        await asyncio.gather(*(go_on() for _ in range(in_flight)))
        elapsed = time.perf_counter() - begin  # without the time that disconnecting takes
    json.dump({**counts, "seconds": elapsed}, sys.stdout)
    return counts["sent"]


async def receive(receiving: Path) -> None:
    """Handle everything until standard input ends; then print how many notifications came."""
    client, handled = ATPClient.from_identity_file(receiving), 0

    async def answer(envelope: Any, respond: Any) -> None:
        await respond({"ok": True})

    async def take(envelope: Any) -> None:
        nonlocal handled
        handled += 1

    client.on_message("request", answer)
    client.on_message("notification", take)
    async with client:
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        expected = int(await loop.run_in_executor(None, sys.stdin.readline) or 0)
        deadline = loop.time() + LAST_SECONDS
        while handled < expected and loop.time() < deadline:
            await asyncio.sleep(0.02)
    print(handled, flush=True)


def measure(sending: Path, receiving: Path, kind: str, in_flight: int, seconds: float) -> None:
    """Print the result as JSON; exit with an error if something sent was not handled."""
    target = json.loads(receiving.read_text(encoding="utf-8"))["agent"]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pair", "receive", str(receiving)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as receiver:
        assert receiver.stdin is not None
        assert receiver.stdout is not None
        receiver.stdout.readline()
        sent = asyncio.run(send(sending, target, kind, in_flight, seconds))
        receiver.stdin.write(f"{sent if kind == 'notification' else 0}\n")
        receiver.stdin.close()
        handled = int(receiver.stdout.readline())
    if kind == "notification" and handled != sent:
        raise SystemExit(f"{sent} notifications were sent, {handled} handled")


def main() -> None:
    """Measure a pair, or be its receiver."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("send")
    one.add_argument("sending", type=Path, help="identity file of the sender")
    one.add_argument("receiving", type=Path)
    one.add_argument("--kind", choices=["notification", "request"], default="notification")
    one.add_argument("--in-flight", type=int, default=256)
    one.add_argument("--seconds", type=float, default=SECONDS)
    other = commands.add_parser("receive")
    other.add_argument("receiving", type=Path)
    options = parser.parse_args()
    if options.command == "receive":
        asyncio.run(receive(options.receiving))
        return
    measure(options.sending, options.receiving, options.kind, options.in_flight, options.seconds)


if __name__ == "__main__":
    main()
