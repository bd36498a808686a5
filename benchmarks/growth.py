"""Compare a hub before and after its database is filled."""

from __future__ import annotations

import os

from benchmarks.fleet import RunningHub, run_python
from benchmarks.report import Figure
from benchmarks.run import Run
from benchmarks.traffic import Traffic, measure_oneway, measure_pipeline, measure_requests

ROWS = int(os.environ.get("ATP_BENCH_ROWS") or 1_000_000)
WARM_UP_SECONDS = 3.0
MEASURE_SECONDS = 8.0


def growth(hub: RunningHub, run: Run) -> list[Figure]:
    """Return figures of a full database, in percent of an empty one.

    The figures are: the rate of hub.oneway, which needs a machine without other load; the CPU time
    of an envelope in full batches without sockets, which does not; and the median time from request
    to answer, whose batches search for the request.
    """
    empty, lean, soon = _measure(hub)
    told = run_python("benchmarks.fill", str(hub.identities), str(ROWS), env=hub.environment)
    print(f"hub.growth: {told.strip()}", flush=True)
    full, fat, late = _measure(hub)
    return [
        run.rate("hub.growth.empty", empty.rate, "envelopes/s"),
        run.rate("hub.growth.full", full.rate, "envelopes/s"),
        _percent("hub.growth", run, full.rate, empty.rate),
        _percent("hub.growth.request.p50", run, late, soon),
        *(
            _percent(f"hub.growth.cpu.{kind}", run, after, lean.cpu[kind])
            for kind, after in fat.cpu.items()
            if kind in lean.cpu
        ),
    ]


def _percent(name: str, run: Run, full: float, empty: float) -> Figure:
    return Figure(name, run.profile, 100 * full / empty, "% of empty")


def _measure(hub: RunningHub) -> tuple[Traffic, Traffic, float]:
    measure_oneway(hub, WARM_UP_SECONDS)
    traffic = measure_oneway(hub, MEASURE_SECONDS)
    return traffic, measure_pipeline(hub), measure_requests(hub)["p50"]
