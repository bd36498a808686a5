"""Measure the memory that an idle authenticated agent costs the server.

python -m benchmarks.idle identities/ PID [--port 8001]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import psutil
import uvloop

from benchmarks.lean import log_in_all, spread
from benchmarks.load import Identity, load_identities

WARM_UP = 100
SETTLE_SECONDS = 3.0


async def run(identities: list[Identity], server: psutil.Process) -> dict[str, float]:
    """Return bytes for each agent: resident (RSS), and with shared pages divided (PSS)."""
    warm = await log_in_all(identities[:WARM_UP])
    await asyncio.sleep(SETTLE_SECONDS)
    before = server.memory_full_info()
    sockets = await log_in_all(identities[WARM_UP:])
    await asyncio.sleep(SETTLE_SECONDS)
    after = server.memory_full_info()
    lost = sum(socket.closed.done() for socket in (*warm, *sockets))
    if lost:
        raise SystemExit(f"{lost} of the idle agents were disconnected")
    for socket in (*warm, *sockets):
        socket.abort()
    return {
        "rss": (after.rss - before.rss) / len(sockets),
        "pss": (after.pss - before.pss) / len(sockets),
    }


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(psutil.Process(pid).memory_info().rss)


def main() -> None:
    """Connect the agents and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("identities", type=Path, help="the folder that benchmarks.provision wrote")
    parser.add_argument("pid", type=int, help="of the process that serves them")
    parser.add_argument("--port", type=int, help="of another server than the agents' own hub")
    options = parser.parse_args()
    identities = load_identities(options.identities)
    if options.port:
        identities = spread(identities, [options.port])
    json.dump(uvloop.run(run(identities, psutil.Process(options.pid))), sys.stdout)


if __name__ == "__main__":
    main()
