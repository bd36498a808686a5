"""Figures of a whole hub that is started for the run and measured from outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from benchmarks import growth, hostile, reach, standing, traffic
from benchmarks.fleet import running_hub
from benchmarks.report import Figure
from benchmarks.run import Bench, Run

PAIR_AGENTS = 2 * traffic.PAIRS

BENCHES = (
    Bench("hub.oneway", "envelopes a second, end to end; CPU of a thousand", traffic.oneway,
          PAIR_AGENTS),
    Bench("hub.request", "request to answer at 20 a second; CPU of a thousand envelopes",
          traffic.request, PAIR_AGENTS),
    Bench("hub.lone", "CPU of an envelope at 20 requests a second, without that of idling",
          traffic.lone, PAIR_AGENTS),
    Bench("hub.pair.oneway", "notifications a second of one agent to another, without other load",
          traffic.pair_oneway, PAIR_AGENTS),
    Bench("hub.pair.requests", "requests a second of one agent to another, without other load",
          traffic.pair_requests, PAIR_AGENTS),
    Bench("pipeline.batch", "envelopes a second that one process judges and stores",
          traffic.pipeline, PAIR_AGENTS),
    Bench("hub.connects", "logins a second; CPU of a thousand; the generator's own limit",
          standing.connects, standing.CONNECTING_AGENTS),
    Bench("hub.broadcast", "a broadcast, until the last of 1,000 sockets on two nodes has it",
          reach.broadcast, reach.AGENTS, nodes=2),
    Bench("hub.revocation.one", "revoking one of 1,000 connected agents, until its socket closes",
          reach.revocation_of_one, 1, nodes=2),
    Bench("hub.revocation.last", "revoking an issuer, until the last of 1,000 sockets is closed",
          reach.revocation, 1, nodes=2),
    Bench("hub.revocation.last_without_redis", "the same with Redis killed (production)",
          reach.revocation_without_redis, 1, nodes=2),
    Bench("hub.revocation.last_redis_frozen", "the same with Redis silent (production)",
          reach.revocation_with_redis_frozen, 1, nodes=2),
    Bench("hub.idle_memory", "KiB of each of 5,000 idle agents, resident and without shared pages",
          standing.idle, standing.IDLE_AGENTS),
    Bench("hub.growth", "the rate with a million envelopes and entries stored, against none",
          growth.growth, PAIR_AGENTS, by_default=False, alone=True),
    *hostile.BENCHES,
)  # fmt: skip


def figures(benches: Sequence[Bench], run: Run) -> Iterator[Figure]:
    """Measure `benches`; neighbours that need the same hub share one."""
    for (agents, nodes, _), some in groupby(benches, key=_hub_of):
        nodes = nodes if run.profile == "production" else 1
        with running_hub(run.profile, agents, nodes=nodes) as hub:
            for bench in some:
                yield from bench.measure(hub, run)


def _hub_of(bench: Bench) -> tuple[int, int, str]:
    return bench.agents, bench.nodes, bench.name if bench.alone else ""
