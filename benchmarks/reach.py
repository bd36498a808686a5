"""Figures of what has to reach all agents: a broadcast, and a revocation.

The officer is a process of its own, beside the nodes. So an embedded hub, whose layer is its own
memory, hears of a revocation by its look at the epoch alone.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.fleet import RunningHub, run_python, wait_until_ready
from benchmarks.report import Figure
from benchmarks.run import Run

AUDIENCE = 1_000
AGENTS = AUDIENCE + 1  # with the sender of the broadcasts
REVOCATIONS = 3  # each of agents and an issuer of its own


def broadcast(hub: RunningHub, run: Run) -> list[Figure]:
    """Milliseconds from a send to the last of 1,000 sockets; the median of five."""
    seen = run_python(
        "benchmarks.broadcast", str(hub.identities), "--ports", _ports(hub), env=hub.environment
    )
    median = statistics.median(seen["milliseconds"])
    return [run.wait("hub.broadcast.last", median, messages=AUDIENCE)]


def revocation(hub: RunningHub, run: Run) -> list[Figure]:
    """Milliseconds from an officer's commit to the last socket closed; the median of three.

    Of an issuer that alone vouches for 1,000 connected agents.
    """
    return _revocations("hub.revocation.last", hub, run)


def revocation_of_one(hub: RunningHub, run: Run) -> list[Figure]:
    """The same of one agent among them."""
    return _revocations("hub.revocation.one", hub, run, whole=False)


def revocation_without_redis(hub: RunningHub, run: Run) -> list[Figure]:
    """Of an issuer, with Redis killed just before; none in the embedded hub."""
    return _revocations("hub.revocation.last_without_redis", hub, run, strike="--cut")


def revocation_with_redis_frozen(hub: RunningHub, run: Run) -> list[Figure]:
    """Of an issuer, with a Redis that holds its connections and answers nothing."""
    return _revocations("hub.revocation.last_redis_frozen", hub, run, strike="--freeze")


def _revocations(
    name: str, hub: RunningHub, run: Run, *, strike: str = "", whole: bool = True
) -> list[Figure]:
    """The figure, or none where sockets were left open: then that is said."""
    if strike and hub.engines.redis is None:
        return []
    waits = []
    for place in range(REVOCATIONS):
        seen = _revoke(hub, f"{name.rpartition('.')[2].replace('_', '-')}-{place}", strike, whole)
        if seen["closed"] < seen["expected"] or seen["tooSoon"]:
            print(f"{name} is not valid: {seen}", flush=True)
            return []
        waits.append(seen["last"])
    return [run.wait(name, statistics.median(waits), messages=AUDIENCE if whole else 1)]


def _revoke(hub: RunningHub, issuer: str, strike: str, whole: bool) -> dict[str, Any]:
    """Connect agents that only `issuer` vouches for, and revoke it, or the first of them."""
    folder = hub.identities.with_name(issuer)
    run_python(
        "benchmarks.provision", str(AUDIENCE), str(folder), "--issuer", issuer,
        "--enrolled", "1", env=hub.environment,
    )  # fmt: skip
    whom = ("--issuer", issuer) if whole else ("--agent",)
    engine = hub.engines.redis
    struck = (strike, str(engine.pids[0])) if strike and engine else ()
    try:
        seen: dict[str, Any] = run_python(
            "benchmarks.revocation", str(folder), "--ports", _ports(hub), *whom, *struck,
            env=hub.environment,
        )  # fmt: skip
    finally:
        if struck:
            _bring_back(hub)
    return seen


def _bring_back(hub: RunningHub) -> None:
    assert hub.engines.redis is not None
    hub.engines.redis.resume()
    hub.engines.redis.start()
    wait_until_ready(hub.process, hub.ports)


def _ports(hub: RunningHub) -> str:
    return ",".join(str(port) for port in hub.ports)
