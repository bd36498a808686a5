"""The company: engines, nodes, workers, beat and agents of a run, which may be killed at any time.

A process that dies is started again, as systemd does, without waiting until it is ready.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.crash.agents import KILLED
from tests.processes import hub_environment
from tests.services import PrivateService
from tests.sources import ROOT

RESTART_SECONDS = 0.5  # after it ended by itself, by a failpoint or without its database
STOP_SECONDS = 20
LAUNCHER = (sys.executable, "-m", "tests.crash.launcher")

# The failpoints at which a process may be ended, at a random hit.
FAILPOINTS = {
    "worker": (
        "before_parse", "before_insert", "before_commit", "after_commit", "before_publish",
        "before_layer_send", "half_way_through_broadcast",
    ),
    "node": ("before_ack", "inside_ack", "before_layer_send"),
}  # fmt: skip
TASK_FAILPOINTS = ("before_commit_of_", "after_commit_of_")  # of workers too, see `launcher`
PASSINGS = {"before_parse": (20, 200), "half_way_through_broadcast": (1, 3)}
USUAL_PASSINGS = (2, 25)
TASK_PASSINGS = (1, 2)


@dataclass(slots=True)
class Member:
    """A process of the company, kept across restarts."""

    name: str
    kind: str
    command: tuple[str, ...]
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    away_until: float = 0.0  # by `time.monotonic`
    starts: int = 0
    has_fault: bool = False  # started with a failpoint armed, or as a mutant

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid

    def start(self, *, failpoints: str = "") -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env={**self.env, "ATP_FAILPOINTS": failpoints},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.starts += 1
        self.has_fault = bool(failpoints or self.env.get("ATP_CRASH_MUTANT"))

    def signal(self, number: int) -> None:
        """Send a signal to the process and its children."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(STOP_SECONDS)

    def end(self) -> None:
        """Stop the process with the signal that operators use."""
        if self.runs and self.process is not None:
            self.signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)

    def kill_child(self) -> None:
        """Kill a child of a worker with SIGKILL; the worker must notice."""
        if self.process is None or not self.runs:
            return
        try:
            for child in psutil.Process(self.process.pid).children():
                child.kill()
        except psutil.NoSuchProcess:
            return


@dataclass(slots=True)
class Company:
    """All processes of a run. Call `tend` regularly: it restarts processes."""

    folder: Path
    data: Path  # the hub's own folder
    env: dict[str, str]
    chance: random.Random
    services: dict[str, PrivateService] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    service_away_until: dict[str, float] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)  # ends by themselves, by kind
    tasks: tuple[str, ...] = ()  # scheduled tasks, whose commits are failpoints
    armed_share: float = 0.0  # of starts of nodes and workers, with a failpoint armed
    _armed: dict[str, str] = field(default_factory=dict)  # failpoints of the next start, by name
    # By kind; each failpoint comes once before any comes again.
    _failpoints_left: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, *arguments: str, port: int, mutant: str = "") -> Member:
        """Add a process of the hub: `manage.py` with these arguments."""
        extra = {**self.env, "PYTHONUNBUFFERED": "1"}
        if mutant:
            extra["ATP_CRASH_MUTANT"] = mutant
        env = hub_environment(self.data, port, extra)
        return self._add(name, (*LAUNCHER, *arguments), env)

    def add_agents(self, name: str, part: Path, *, module: str) -> Member:
        command = (sys.executable, "-m", module, str(part))
        return self._add(name, command, {**os.environ})

    def _add(self, name: str, command: tuple[str, ...], env: dict[str, str]) -> Member:
        kind = name.partition("-")[0]
        member = Member(name, kind, command, env, self.folder / f"{name}.log")
        self.members[name] = member
        return member

    def pids(self) -> dict[str, int]:
        """Return the processes that run now, without their children."""
        services = {name: s.pids[0] for name, s in self.services.items() if s.is_running}
        return services | {n: m.pid for n, m in self.members.items() if m.pid and m.runs}

    def names(self, kind: str) -> list[str]:
        """Return the members of a kind: postgres, redis, node, worker, beat, agents."""
        return [name for name in (*self.services, *self.members) if name.partition("-")[0] == kind]

    def tend(self) -> None:
        """Start members that do not run and whose time away is over."""
        now = time.monotonic()
        for name, service in self.services.items():
            if not service.is_running and self.service_away_until.get(name, 0.0) <= now:
                service.launch()
                self.service_away_until[name] = now + RESTART_SECONDS  # if it ends at once
        for member in self.members.values():
            if member.runs:
                continue
            if member.process is not None and member.away_until == 0.0:
                by_message = member.process.returncode == KILLED
                self.deaths[f"{member.kind}{' by a message' * by_message}"] += 1
                member.away_until = now + RESTART_SECONDS
            if member.away_until <= now:
                member.away_until = 0.0
                armed = self._armed.pop(member.name, "")
                member.start(failpoints=armed or self._failpoints(member.kind))

    def tend_until(self, holds: Callable[[], bool], *, seconds: float) -> bool:
        """Tend until `holds()` is true; return false if it is not in that time."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            self.tend()
            time.sleep(0.05)
        return True

    def kill(self, name: str, *, away_seconds: float) -> None:
        """Kill a member with SIGKILL; it is started again after some seconds."""
        back = time.monotonic() + away_seconds
        if name in self.services:
            self.service_away_until[name] = back
            self.services[name].kill()
        else:
            self.members[name].away_until = back
            self.members[name].kill()

    def end(self, name: str, *, away_seconds: float) -> None:
        """Stop a member in order; it is started again when it has ended."""
        self.members[name].away_until = time.monotonic() + away_seconds
        self.members[name].end()

    def pause(self, name: str) -> None:
        if name in self.services:
            self.services[name].pause()
        else:
            self.members[name].signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        if name in self.services:
            self.services[name].resume()
        else:
            self.members[name].signal(signal.SIGCONT)

    def arm(self, name: str, failpoints: str) -> None:
        """Start a member with these failpoints when it is started next."""
        self._armed[name] = failpoints

    def disarm(self) -> None:
        """Arm no more faults, and replace the processes that have one."""
        self.armed_share = 0.0
        self._armed.clear()
        for name, member in self.members.items():
            member.env.pop("ATP_CRASH_MUTANT", None)
            if member.has_fault:
                self.kill(name, away_seconds=0.0)

    def stop(self) -> None:
        """Stop all processes except services, the agents first."""
        order = ("agents", "node", "worker", "beat")
        for kind in order:
            self._end_all(self.members[name] for name in self.names(kind))

    def _end_all(self, members: Iterable[Member]) -> None:
        ending = list(members)
        for member in ending:
            member.end()
        deadline = time.monotonic() + STOP_SECONDS
        for member in ending:
            while member.runs and time.monotonic() < deadline:
                time.sleep(0.02)
            member.kill()

    def _failpoints(self, kind: str) -> str:
        if kind not in FAILPOINTS or self.chance.random() >= self.armed_share:
            return ""
        left = self._failpoints_left.setdefault(kind, [])
        if not left:
            left += self._all_failpoints(kind)
            self.chance.shuffle(left)
        name = left.pop()
        of_task = name.startswith(TASK_FAILPOINTS)
        span = TASK_PASSINGS if of_task else PASSINGS.get(name, USUAL_PASSINGS)
        return f"{name}:{self.chance.randint(*span)}"

    def _all_failpoints(self, kind: str) -> list[str]:
        """Return the failpoints that this kind of process can hit; a single process hits all."""
        of_tasks = [moment + task for moment in TASK_FAILPOINTS for task in self.tasks]
        of_workers = [*FAILPOINTS["worker"], *of_tasks]
        if not self.names("worker"):
            return [*FAILPOINTS["node"], *of_workers]
        return of_workers if kind == "worker" else list(FAILPOINTS[kind])
