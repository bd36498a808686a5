"""Measure how an attack slows down a pair of other agents, the bystanders.

Each attack is compared with the calm time just before it, on the same hub. The goal is at most
twice the p99. The attacker runs on the same machine only in this benchmark, so it has the lowest
priority. Its result is printed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from benchmarks.attacks import ATTACKS
from benchmarks.fleet import ROOT, RunningHub, run_python
from benchmarks.report import Figure
from benchmarks.run import Bench, Run

AGENTS = 16  # a pair of bystanders; the others attack or are recipients
BYSTANDERS_SECONDS = 20.0  # 400 requests, so p99 is the fourth slowest
ATTACK_SECONDS = 28.0  # longer than the measurement of the bystanders
SETTLE_SECONDS = 1.0  # from the beginning of the attack to the measurement
LOOK_SECONDS = 0.05
LOWEST_PRIORITY = 19


@dataclass(slots=True)
class Memory:
    """The resident memory of a process in bytes: at the begin, and the highest."""

    pid: int
    before: int = 0
    most: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def grown(self) -> int:
        """How many bytes the memory grew at most."""
        return self.most - self.before

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Measure while the context lasts."""
        self.before = self.most = self._now()
        watching = threading.Thread(target=self._watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            self._ended.set()
            watching.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.most = max(self.most, self._now())

    def _now(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)


@contextmanager
def attacking(
    name: str, identities: Path, *, seconds: float, waiting: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run an attack as a process while the context lasts; it prints its result at the end."""
    options = ["--seconds", str(seconds)]
    if waiting is not None:
        options += ["--waiting", str(waiting)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.attacks", name, str(identities), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    psutil.Process(process.pid).nice(LOWEST_PRIORITY)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"the attack {name} did not begin")
        yield process
    finally:
        process.kill()
        process.wait()


def under_attack(name: str, hub: RunningHub, run: Run) -> list[Figure]:
    """Return the bystanders' p50 and p99, compared with the calm before, and the node's memory."""
    calm = _bystanders(hub)
    memory = Memory(hub.node_pids[0])
    attackers = _attackers(hub)
    with memory.watched(), attacking(name, attackers, seconds=ATTACK_SECONDS) as attack:
        time.sleep(SETTLE_SECONDS)
        felt = _bystanders(hub)
        if attack.poll() is not None:
            raise SystemExit(f"the attack {name} ended before the bystanders had been measured")
        did = json.loads(attack.communicate(timeout=ATTACK_SECONDS)[0])
    return [
        *(
            Figure(f"hostile.{name}.{p}", run.profile, felt[p], "ms", "calm", felt[p] / calm[p])
            for p in ("p50", "p99")
        ),
        Figure(f"hostile.{name}.memory", run.profile, memory.grown / 2**20, "MiB more"),
        *(
            Figure(f"hostile.{name}.attack", run.profile, count, word)
            for word, count in did.items()
        ),
    ]


BENCHES = tuple(
    Bench(
        f"hostile.{name}",
        f"bystanders' waits, and the hub's memory, under attack: {name.replace('_', ' ')}",
        partial(under_attack, name),
        AGENTS,
        by_default=False,
    )
    for name in ATTACKS
)


def _bystanders(hub: RunningHub) -> dict[str, float]:
    asking, answering, *_ = sorted(hub.identities.glob("*.json"))
    seconds = ("--seconds", str(BYSTANDERS_SECONDS))
    felt = run_python(
        "benchmarks.requests", str(asking), str(answering), *seconds, env=hub.environment
    )
    return dict(felt)


def _attackers(hub: RunningHub) -> Path:
    """Return a folder with the identities of all agents except the bystanders."""
    folder = hub.identities.with_name("attackers")
    if not folder.exists():
        shutil.copytree(hub.identities, folder)
        for bystander in sorted(folder.glob("*.json"))[:2]:
            bystander.unlink()
    return folder
