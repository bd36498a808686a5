"""`make soak`: an hour at half load. Memory and latency must not grow, and nothing may be lost.

    ATP_SOAK_SECONDS=180 python -m tests.crash.soak

It makes no faults. First it measures how much the hub and these agents can do, then it runs them at
half of that. Agents and services share the machine, so the figures only compare one minute with
another. `make bench` measures the hub alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.crash.__main__ import end_in_order, fresh_folder, note
from tests.crash.engines import Engines, Storage, private_engines
from tests.crash.log import Event, Kind, parse_lines
from tests.crash.report import summary, table
from tests.crash.run import Plan, Stage, judge
from tests.sources import ROOT

SECONDS = 3600.0
SAMPLES = 60  # of a run; in an hour, one each minute
PROBE_SECONDS = 20.0
PROBE_RATE = 1000.0  # envelopes a second, more than an agent can send
LOAD_SHARE = 0.5
JUDGED_KINDS = ("node", "worker", "beat")  # by memory; agents store all that they have seen
MOST_GROWTH = 0.10  # of a process's memory, from the first third to the last
SPARE_BYTES = 8_388_608
MOST_SLOWER = 1.5  # factor of the median latency, from the first third to the last
SPARE_MS = 5.0
TURNS = {"notify": 63, "ask": 35, "broadcast": 2}
ENVELOPES_A_MESSAGE = 1.35  # on average, because a request has an answer
AS_GOOD_AS_NONE = 0.01
LULL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One interval: accepted envelopes a second, latency of receipts, memory and disk."""

    second: float
    rate: float
    p50_ms: float
    p99_ms: float
    memory: dict[str, int]  # bytes, by process
    database: int  # bytes


@dataclass(slots=True)
class Latencies:
    """A reader that follows the growing logs of the agents."""

    folder: Path
    _read: dict[Path, int] = field(default_factory=dict)
    _open: dict[str, float] = field(default_factory=dict)  # time of sending, by message id

    def new_seconds(self) -> list[float]:
        """Return seconds from sending to acceptance, for envelopes accepted since the last call."""
        found: list[float] = []
        for path in self.folder.glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text.rfind(b"\n") + 1
            self._read[path] = self._read.get(path, 0) + whole
            found += self._of(parse_lines(text[:whole].split(b"\n")))
        return found

    def _of(self, events: Iterable[Event]) -> list[float]:
        found = []
        for event in events:
            if event.kind is Kind.SENT:
                self._open.setdefault(event.message, event.at)
            elif event.kind is Kind.RECEIPT and event.status == "accepted":
                found.append(event.at - self._open.pop(event.message, event.at))
        return found


def main() -> int:
    seconds = float(os.environ.get("ATP_SOAK_SECONDS") or SECONDS)
    end_in_order()
    seed = secrets.randbelow(2**31)
    folder = fresh_folder(ROOT / "var" / "soak" / str(seed))
    plan = Plan(seconds=seconds, seed=seed, rate=1.0, turns=TURNS, armed_share=0.0)
    try:
        with private_engines(Storage()) as engines:
            return soak(plan, folder, engines)
    except pytest.skip.Exception as missing:
        sys.exit(str(missing))


def soak(plan: Plan, folder: Path, engines: Engines) -> int:
    """Run the soak test; return 1 if the verdict is bad."""
    stage = Stage(plan, folder, engines)
    with stage.proxy:
        try:
            stage.open()
            samples = _load(stage)
            took, left = stage.settle()
        finally:
            stage.close()
    outcome = judge(stage, [], took, left)
    print(f"\n{table(outcome)}\n")
    verdict = faults(samples)
    if outcome.violations:
        verdict.append(f"{len(outcome.violations)} promises were broken")
    figures = {"at": round(time.time()), **summary(outcome), "faults": verdict}
    note({**figures, "samples": [asdict(s) for s in samples]}, ROOT / "var" / "soak.jsonl")
    print("\n".join(verdict) or "Memory flat, latency flat, nothing lost.")
    if not outcome.violations:
        shutil.rmtree(folder)
    return int(bool(verdict))


def faults(samples: Sequence[Sample]) -> list[str]:
    """Return a sentence for each figure that grew too much over the run."""
    third = max(1, len(samples) // 3)
    first, last = samples[:third], samples[-third:]
    found = []
    for name in last[-1].memory:
        if name.partition("-")[0] not in JUDGED_KINDS:
            continue
        before, after = (
            statistics.median(s.memory.get(name, 0) for s in part) for part in (first, last)
        )
        if after > before * (1 + MOST_GROWTH) + SPARE_BYTES:
            found.append(f"{name} grew from {_mib(before)} to {_mib(after)} MiB")
    for figure in ("p50_ms", "p99_ms"):
        before, after = (
            statistics.median(getattr(s, figure) for s in part) for part in (first, last)
        )
        if after > before * MOST_SLOWER + SPARE_MS:
            found.append(f"{figure} went from {before:.1f} to {after:.1f} ms")
    return found


def _load(stage: Stage) -> list[Sample]:
    latencies = Latencies(stage.logs)
    agents = stage.plan.processes * stage.plan.agents
    stage.pace(PROBE_RATE)
    latencies.new_seconds()
    stage.company.tend_until(lambda: False, seconds=PROBE_SECONDS)
    most = len(latencies.new_seconds()) / PROBE_SECONDS
    rate = most * LOAD_SHARE
    print(f"soak: {stage.plan.seconds:g} s at {rate:.0f} of {most:.0f} envelopes a second")
    stage.pace(AS_GOOD_AS_NONE)
    while latencies.new_seconds():  # until the open envelopes of the probe have receipts
        stage.company.tend_until(lambda: False, seconds=LULL_SECONDS)
    stage.pace(rate / agents / ENVELOPES_A_MESSAGE)
    interval = stage.plan.seconds / SAMPLES
    samples: list[Sample] = []
    began = time.monotonic()
    while time.monotonic() - began < stage.plan.seconds:
        before = time.monotonic()
        stage.company.tend_until(lambda: False, seconds=interval)
        seconds = sorted(latencies.new_seconds())
        samples.append(_sample(stage, seconds, time.monotonic() - before, time.monotonic() - began))
        print(_line(samples[-1]), flush=True)
    return samples


def _sample(stage: Stage, seconds: Sequence[float], interval: float, at: float) -> Sample:
    def quantile(share: float) -> float:
        return 1000 * seconds[int(share * (len(seconds) - 1))] if seconds else 0.0

    return Sample(
        second=round(at),
        rate=round(len(seconds) / interval, 1),
        p50_ms=round(quantile(0.5), 1),
        p99_ms=round(quantile(0.99), 1),
        memory={name: _memory(pid) for name, pid in stage.company.pids().items()},
        database=int(stage.query("SELECT pg_database_size(current_database())")[0][0]),
    )


def _memory(pid: int) -> int:
    """Return the memory of a process and its children (PSS), in bytes."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(int(one.memory_full_info().pss) for one in family)
    except psutil.NoSuchProcess:
        return 0


def _line(sample: Sample) -> str:
    memory = "  ".join(f"{name} {_mib(size)}" for name, size in sample.memory.items())
    return (
        f"{sample.second:>6.0f} s  {sample.rate:>7.1f}/s  p50 {sample.p50_ms:>6.1f} ms"
        f"  p99 {sample.p99_ms:>7.1f} ms  database {_mib(sample.database)} MiB"
        f"  memory, MiB: {memory}"
    )


def _mib(size: float) -> str:
    return f"{size / 1_048_576:.0f}"


if __name__ == "__main__":
    sys.exit(main())
