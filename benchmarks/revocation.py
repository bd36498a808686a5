"""Measure the milliseconds from the commit of a revocation to the last closed socket.

    python -m benchmarks.revocation identities/ --ports 8000,8001 --issuer local

With `--agent`, only the first agent is revoked. `--cut PID` kills a process of the hub's engines
just before; `--freeze PID` stops it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.lean import LeanSocket, log_in_all, spread
from benchmarks.load import Identity, load_identities

PATIENCE_SECONDS = 15.0
SETTLE_SECONDS = 2.0  # until the hub has seen every session, and the engine that was cut


async def run(
    identities: list[Identity], who: tuple[str, str], expected: int, strike: tuple[int, int] | None
) -> dict[str, Any]:
    with _officer(who) as officer:
        sockets = await log_in_all(identities)
        await asyncio.sleep(SETTLE_SECONDS)
        if strike is not None:
            os.kill(*strike)
            await asyncio.sleep(SETTLE_SECONDS)
        too_soon = sum(socket.closed.done() for socket in sockets)
        loop = asyncio.get_running_loop()
        committed = await loop.run_in_executor(None, _revoke, officer)
        doomed = sockets[:expected]
        await asyncio.wait([socket.closed for socket in doomed], timeout=PATIENCE_SECONDS)
        result = _result(doomed, committed, too_soon)
        for socket in sockets:
            socket.abort()
    return result


def _result(doomed: Sequence[LeanSocket], committed: float, too_soon: int) -> dict[str, Any]:
    closed = [socket for socket in doomed if socket.closed_at]
    waits = [(socket.closed_at - committed) * 1000 for socket in closed]
    return {
        "expected": len(doomed),
        "tooSoon": too_soon,
        "closed": len(closed),
        "last": max(waits, default=0.0),
        "codes": Counter(str(socket.close_code) for socket in closed),
    }


@contextmanager
def _officer(who: tuple[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a process that is ready to revoke, as a process that serves the admin is."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.officer", *who],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit("the officer did not get ready; what it said stands above")
            yield process
        finally:
            process.kill()


def _revoke(officer: subprocess.Popen[str]) -> float:
    """Tell the officer to revoke; return the time of the commit."""
    assert officer.stdin is not None
    assert officer.stdout is not None
    officer.stdin.write("now\n")
    officer.stdin.flush()
    return float(officer.stdout.readline())


def main() -> None:
    """Connect the agents, revoke, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("identities", type=Path, help="the folder that benchmarks.provision wrote")
    parser.add_argument("--ports", required=True, help="of the nodes, comma-separated")
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--issuer", help="revoke this issuer, which vouches for all of them")
    whom.add_argument("--agent", action="store_true", help="revoke the first of them only")
    parser.add_argument("--cut", type=int, metavar="PID")
    parser.add_argument("--freeze", type=int, metavar="PID")
    options = parser.parse_args()
    ports = [int(port) for port in options.ports.split(",")]
    identities = spread(load_identities(options.identities), ports)
    who = ("agent", identities[0].agent) if options.agent else ("issuer", options.issuer)
    strike = None
    if options.cut or options.freeze:
        kind = signal.SIGKILL if options.cut else signal.SIGSTOP
        strike = (options.cut or options.freeze, kind)
    expected = 1 if options.agent else len(identities)
    json.dump(uvloop.run(run(identities, who, expected, strike)), sys.stdout)


if __name__ == "__main__":
    main()
