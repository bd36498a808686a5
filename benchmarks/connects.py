"""Many logins at once: how many a second the hub admits, and the cost on the client's side.

    python -m benchmarks.connects identities/ [--port 8001]

Each agent logs in once and stays connected. A hundred log in before the time begins,
to warm caches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

from benchmarks.lean import log_in_all, spread
from benchmarks.load import Identity, load_identities

WARM_UP = 100


async def run(identities: list[Identity]) -> dict[str, float]:
    warm = await log_in_all(identities[:WARM_UP])
    print("begin", flush=True)
    started, spent = time.perf_counter(), time.process_time()
    sockets = await log_in_all(identities[WARM_UP:])
    elapsed = time.perf_counter() - started
    spent = time.process_time() - spent
    print("end", flush=True)
    for socket in (*warm, *sockets):
        socket.abort()
    await asyncio.gather(*(socket.closed for socket in (*warm, *sockets)))
    return {"connects": len(sockets), "seconds": elapsed, "cpu": spent}


def main() -> None:
    """Log in all agents and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("identities", type=Path, help="the folder that benchmarks.provision wrote")
    parser.add_argument("--port", type=int, help="of another server than the agents' own hub")
    options = parser.parse_args()
    identities = load_identities(options.identities)
    if options.port:
        identities = spread(identities, [options.port])
    json.dump(uvloop.run(run(identities)), sys.stdout)


if __name__ == "__main__":
    main()
