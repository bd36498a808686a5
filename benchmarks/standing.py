"""Figures of connected agents: the cost of a login, and of an idle agent."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.cpu import CpuMeter
from benchmarks.fleet import ROOT, RunningHub, answers, free_ports, run_python
from benchmarks.load import load_identities
from benchmarks.report import Figure
from benchmarks.run import Run
from benchmarks.traffic import cpu_figures, of_thousand

CONNECTING_AGENTS = 1_500
IDLE_AGENTS = 5_000
START_SECONDS = 60


def connects(hub: RunningHub, run: Run) -> list[Figure]:
    """Return logins a second, the CPU time of a thousand, and the limit of the generator."""
    meter = CpuMeter(hub.processes)
    folder = str(hub.identities)
    seen = run_python("benchmarks.connects", folder, env=hub.environment, at_mark=meter.mark)
    with _bare_server(hub) as (port, _):
        most = run_python("benchmarks.connects", folder, "--port", str(port), env=hub.environment)
    ceiling = most["connects"] / most["seconds"]
    cpu = of_thousand({**meter.seconds, "load": seen["cpu"]}, seen["connects"])
    return [
        run.rate("hub.connects", seen["connects"] / seen["seconds"], "agents/s"),
        Figure("hub.connects.ceiling", run.profile, ceiling, "agents/s"),
        *cpu_figures("hub.connects", run, cpu),
    ]


def idle(hub: RunningHub, run: Run) -> list[Figure]:
    """Return the node's KiB for each idle agent, compared with those of a bare server."""
    folder = str(hub.identities)
    pid = str(hub.node_pids[0])
    seen = run_python("benchmarks.idle", folder, pid, env=hub.environment)
    with _bare_server(hub) as (port, bare):
        least = run_python(
            "benchmarks.idle", folder, str(bare), "--port", str(port), env=hub.environment
        )
    return [
        Figure("hub.idle_memory.bare", run.profile, least["pss"] / 1024, "KiB/agent"),
        _memory("hub.idle_memory", run, seen["rss"], least["rss"]),
        _memory("hub.idle_memory.pss", run, seen["pss"], least["pss"]),
    ]


def _memory(name: str, run: Run, bytes_each: float, bare: float) -> Figure:
    return Figure(
        name, run.profile, bytes_each / 1024, "KiB/agent", "hub.idle_memory.bare", bytes_each / bare
    )


@contextmanager
def _bare_server(hub: RunningHub) -> Iterator[tuple[int, int]]:
    """Run a bare server for these agents; yield its port and process id."""
    (port,) = free_ports(1)
    hub_id = load_identities(hub.identities)[0].hub
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare", str(port), hub_id], cwd=ROOT
    ) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the bare server did not start")
                time.sleep(0.1)
            yield port, process.pid
        finally:
            process.terminate()
