"""Figures of traffic: envelopes a second, the time of a request, and the CPU time of both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cpu import CpuMeter
from benchmarks.fleet import RunningHub, run_python
from benchmarks.report import Figure
from benchmarks.run import Run
from benchmarks.stages import StageMeter

PAIRS = 20
LOAD_SECONDS = 10
IDLE_SECONDS = 6
PAIR_ONEWAY = (64, 256, 1_000)  # in flight
PAIR_REQUESTS = (1, 32, 256)


@dataclass(frozen=True, slots=True)
class Traffic:
    """The result of a load of one-way envelopes."""

    rate: float  # envelopes a second that were accepted, delivered and acknowledged
    cpu: dict[str, float]  # milliseconds for a thousand envelopes, by kind of process


def oneway(hub: RunningHub, run: Run) -> list[Figure]:
    """Return acknowledged envelopes a second, and the CPU time of a thousand."""
    stages = StageMeter(hub.ports)
    seen = measure_oneway(hub, LOAD_SECONDS, at_mark=stages.mark)
    print(f"hub.oneway: {stages.table()}", flush=True)
    rate = run.rate("hub.oneway", seen.rate, "envelopes/s")
    return [rate, *cpu_figures("hub.oneway", run, seen.cpu)]


def measure_oneway(
    hub: RunningHub, seconds: float, *, at_mark: Callable[[str], None] = lambda _: None
) -> Traffic:
    """Send between all pairs for so many seconds."""
    meter = CpuMeter(hub.processes)

    def mark(name: str) -> None:
        meter.mark(name)
        at_mark(name)

    seen = run_python(
        "benchmarks.load", str(hub.identities), "--pairs", str(PAIRS),
        "--seconds", str(seconds), env=hub.environment, at_mark=mark,
    )  # fmt: skip
    if seen["refused"] or seen["delivered"] != seen["accepted"]:
        raise SystemExit(f"hub.oneway is not valid: {seen}")
    # Delivery at least once allows repeats, and they are not counted. They are unexpected here.
    if seen["repeated"] or seen["backlog"]:
        print(f"hub.oneway: delivered again: {seen}", flush=True)
    cpu = of_thousand({**meter.seconds, "load": seen["cpu"]}, seen["delivered"])
    return Traffic(seen["delivered"] / seen["seconds"], cpu)


def request(hub: RunningHub, run: Run) -> list[Figure]:
    """Return milliseconds from request to answer, 20 a second, and the CPU of 1,000 envelopes."""
    meter, stages = CpuMeter(hub.processes), StageMeter(hub.ports)

    def mark(name: str) -> None:
        meter.mark(name)
        stages.mark(name)

    seen = measure_requests(hub, at_mark=mark)
    print(f"hub.request: {stages.table()}", flush=True)
    waits = [run.wait(f"hub.request.{p}", seen[p]) for p in ("p50", "p99")]
    cpu = of_thousand({**meter.seconds, "load": seen["cpu"]}, seen["envelopes"])
    return [*waits, *cpu_figures("hub.request", run, cpu)]


def lone(hub: RunningHub, run: Run) -> list[Figure]:
    """Return CPU milliseconds of an envelope at 20 requests a second, without those of idling."""
    idle, busy = CpuMeter(hub.processes), CpuMeter(hub.processes)
    idle.mark("begin")
    time.sleep(IDLE_SECONDS)
    idle.mark("end")
    seen = measure_requests(hub, at_mark=busy.mark)
    spent = {
        kind: busy.seconds[kind] - idle.seconds.get(kind, 0.0) * busy.elapsed / idle.elapsed
        for kind in busy.seconds
    }
    of_one = {kind: max(0.0, value) * 1000 / seen["envelopes"] for kind, value in spent.items()}
    figures = {**{f".{kind}": value for kind, value in of_one.items()}, "": sum(of_one.values())}
    return [run.cpu_of_one(f"hub.lone.cpu{kind}", value) for kind, value in figures.items()]


def measure_requests(
    hub: RunningHub, *, at_mark: Callable[[str], None] = lambda _: None
) -> dict[str, float]:
    """Return the figures of `benchmarks.requests`: one agent sends requests to another."""
    asking, answering, *_ = sorted(hub.identities.glob("*.json"))
    seen: dict[str, float] = run_python(
        "benchmarks.requests", str(asking), str(answering), env=hub.environment, at_mark=at_mark
    )
    return seen


def pair_oneway(hub: RunningHub, run: Run) -> list[Figure]:
    """Return notifications a second from one agent to another, by how many are in flight."""
    return [
        run.rate(f"hub.pair.oneway.{n}", _pair_rate(hub, "notification", n), "envelopes/s")
        for n in PAIR_ONEWAY
    ]


def pair_requests(hub: RunningHub, run: Run) -> list[Figure]:
    """Return answered requests a second of one agent to another, by how many are in flight."""
    return [
        run.rate(f"hub.pair.requests.{n}", _pair_rate(hub, "request", n), "requests/s")
        for n in PAIR_REQUESTS
    ]


def _pair_rate(hub: RunningHub, kind: str, in_flight: int) -> float:
    sending, receiving, *_ = sorted(hub.identities.glob("*.json"))
    seen = run_python(
        "benchmarks.pair", "send", str(sending), str(receiving), "--kind", kind,
        "--in-flight", str(in_flight), env=hub.environment,
    )  # fmt: skip
    return float(seen["counted"] / seen["seconds"])


def pipeline(hub: RunningHub, run: Run) -> list[Figure]:
    """Return envelopes a second that one process judges and stores, in full batches."""
    seen = measure_pipeline(hub)
    rate = run.rate("pipeline.batch", seen.rate, "envelopes/s")
    return [rate, *cpu_figures("pipeline.batch", run, seen.cpu)]


def measure_pipeline(hub: RunningHub) -> Traffic:
    """Return rate and CPU time; the CPU is that of the judging process and of PostgreSQL."""
    meter = CpuMeter(hub.processes)
    seen = run_python(
        "benchmarks.pipeline", str(hub.identities), env=hub.environment, at_mark=meter.mark
    )
    spent = {"worker": seen["cpu"], "postgres": meter.seconds.get("postgres", 0.0)}
    cpu = of_thousand(
        {kind: seconds for kind, seconds in spent.items() if seconds}, seen["envelopes"]
    )
    return Traffic(seen["envelopes"] / seen["seconds"], cpu)


def of_thousand(seconds: dict[str, float], count: float) -> dict[str, float]:
    """Return CPU milliseconds by kind of process, for a thousand of `count`; `hub` is the sum."""
    spent = {kind: value * 1e6 / count for kind, value in sorted(seconds.items())}
    return {**spent, "hub": sum(value for kind, value in spent.items() if kind != "load")}


def cpu_figures(name: str, run: Run, cpu: dict[str, float]) -> list[Figure]:
    """Return one figure for each kind of process in `cpu`."""
    return [run.cpu(f"{name}.cpu.{kind}", value) for kind, value in cpu.items()]
