"""Measure the time from request to answer through the hub, with the SDK on both sides."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from atp import ATPClient

PER_SECOND = 20
SECONDS = 10.0
WARM_UP = 20


async def run(asking: Path, answering: Path, seconds: float) -> dict[str, float]:
    """Return p50 and p99 in milliseconds, the envelopes, and the CPU seconds of this process."""
    responder = ATPClient.from_identity_file(answering)

    async def answer(envelope: Any, respond: Any) -> None:
        await respond({"ok": True})

    responder.on_message("request", answer)
    target = responder.identity.id
    took: list[float] = []

    async def ask(client: ATPClient) -> None:
        started = time.perf_counter()
        await client.send_request(target, {"n": 1})
        took.append((time.perf_counter() - started) * 1000)

    async with responder, ATPClient.from_identity_file(asking) as client:
        for _ in range(WARM_UP):
            await ask(client)
        took.clear()
        print("begin", flush=True)
        spent = time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(int(PER_SECOND * seconds)):
                group.create_task(ask(client))
                await asyncio.sleep(1 / PER_SECOND)
        spent = time.process_time() - spent
        print("end", flush=True)
    hundredths = statistics.quantiles(took, n=100)
    return {
        "p50": hundredths[49],
        "p99": hundredths[98],
        "envelopes": 2 * len(took),
        "cpu": spent,
    }


def main() -> None:
    """Send the requests and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("asking", type=Path, help="identity file of who asks")
    parser.add_argument("answering", type=Path)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    json.dump(asyncio.run(run(options.asking, options.answering, options.seconds)), sys.stdout)


if __name__ == "__main__":
    main()
