"""Figures of broadcasts and revocations, which must reach all agents.

The officer runs in its own process. So an embedded hub, whose layer is in its memory, learns of a
revocation only when it reads the epoch.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.fleet import RunningHub, run_python, wait_until_ready
from benchmarks.report import Figure
from benchmarks.run import Run

AUDIENCE = 1_000
AGENTS = AUDIENCE + 1  # the audience and the sender
REVOCATIONS = 3  # each with its own agents and issuer


def broadcast(hub: RunningHub, run: Run) -> list[Figure]:
    """Return the milliseconds from a send to the last of 1,000 sockets; the median of five."""
    seen = run_python(
        "benchmarks.broadcast", str(hub.identities), "--ports", _ports(hub), env=hub.environment
    )
    median = statistics.median(seen["milliseconds"])
    return [run.wait("hub.broadcast.last", median, messages=AUDIENCE)]


def revocation(hub: RunningHub, run: Run) -> list[Figure]:
    """Return the milliseconds from an officer's commit to the last closed socket.

    The officer revokes an issuer, the only one that attests 1,000 connected agents. The figure is
    the median of three.
    """
    return _revocations("hub.revocation.last", hub, run)


def revocation_of_one(hub: RunningHub, run: Run) -> list[Figure]:
    """Return the milliseconds from the revocation of one agent until its socket is closed."""
    return _revocations("hub.revocation.one", hub, run, whole=False)


def revocation_without_redis(hub: RunningHub, run: Run) -> list[Figure]:
    """Revoke an issuer just after Redis was killed; no figure in the embedded profile."""
    return _revocations("hub.revocation.last_without_redis", hub, run, strike="--cut")


def revocation_with_redis_frozen(hub: RunningHub, run: Run) -> list[Figure]:
    """Revoke an issuer while Redis keeps its connections but does not answer."""
    return _revocations("hub.revocation.last_redis_frozen", hub, run, strike="--freeze")


def _revocations(
    name: str, hub: RunningHub, run: Run, *, strike: str = "", whole: bool = True
) -> list[Figure]:
    """Return the figure; print a line and return none if sockets stayed open."""
    if strike and hub.engines.redis is None:
        return []
    waits = []
    for number in range(REVOCATIONS):
        seen = _revoke(hub, f"{name.rpartition('.')[2].replace('_', '-')}-{number}", strike, whole)
        if seen["closed"] < seen["expected"] or seen["tooSoon"]:
            print(f"{name} is not valid: {seen}", flush=True)
            return []
        waits.append(seen["last"])
    return [run.wait(name, statistics.median(waits), messages=AUDIENCE if whole else 1)]


def _revoke(hub: RunningHub, issuer: str, strike: str, whole: bool) -> dict[str, Any]:
    """Connect agents that only `issuer` attests; revoke the issuer, or the first agent."""
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
