"""The nemesis: makes faults at random from a seed, and notes each one.

Each kind of fault comes once before any kind comes again.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import redis

from tests.crash.company import Company
from tests.crash.proxy import Proxy
from tests.services import PrivateRedis

LONG_PAUSE_SECONDS = 12.0  # longer than a lease, ATP_LEASE_SECONDS
TICK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault that happened to `victim`, from `at` (seconds since 1970), for some seconds."""

    at: float
    fault: str
    victim: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Temper:
    """The settings of the nemesis: the time between faults, and how long faults last."""

    between: tuple[float, float] = (0.5, 4.0)
    away: tuple[float, float] = (0.1, 3.0)
    sleep: tuple[float, float] = (0.5, 4.0)
    long_share: float = 0.15  # of pauses, which are longer than a lease


@dataclass(slots=True)
class Nemesis:
    """The maker of faults in the company and the proxy."""

    company: Company
    proxy: Proxy
    chance: random.Random
    temper: Temper = field(default_factory=Temper)
    send_task: Callable[[str], None] = lambda _name: None
    blows: list[Blow] = field(default_factory=list)
    _later: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: itertools.count[int] = field(default_factory=itertools.count)
    _paused: set[str] = field(default_factory=set)

    def strike_for(self, seconds: float) -> None:
        """Make faults for so many seconds, then undo those that last."""
        ends = time.monotonic() + seconds
        deck: list[str] = []
        next_blow = time.monotonic() + self._draw(self.temper.between)
        while (now := time.monotonic()) < ends:
            self._do_what_is_due(now)
            self.company.tend()
            if now >= next_blow:
                if not deck:
                    deck = self._shuffled()
                self._strike(deck.pop())
                next_blow = time.monotonic() + self._draw(self.temper.between)
            time.sleep(TICK_SECONDS)
        self._do_what_is_due(float("inf"))

    def _shuffled(self) -> list[str]:
        deck = [f for f, times in DECK.items() for _ in range(times) if self._has_victims(f)]
        self.chance.shuffle(deck)
        return deck

    def _has_victims(self, fault: str) -> bool:
        """Return the faults for this hub; a hub of one process has fewer."""
        kind = fault.partition(" ")[2]
        return kind in ALWAYS_THERE or bool(self.company.names(kind))

    def _strike(self, fault: str) -> None:
        what, _, kind = fault.partition(" ")
        victim, seconds = FAULTS[what](self, kind)
        if victim:
            blow = Blow(round(time.time(), 3), fault, victim, round(seconds, 2))
            self.blows.append(blow)
            with (self.company.folder / "blows.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(blow)) + "\n")

    def _kill(self, kind: str) -> tuple[str, float]:
        name, seconds = self._one_of(kind), self._draw(self.temper.away)
        if name:
            self._paused.discard(name)
            self.company.kill(name, away_seconds=seconds)
        return name, seconds

    def _kill_all(self, _kind: str) -> tuple[str, float]:
        """Kill every process of the hub and its engines at once, as a power failure does."""
        seconds = self._draw(self.temper.away)
        for kind in ("node", "worker", "beat", "redis", "postgres"):
            for name in self.company.names(kind):
                self._paused.discard(name)
                self.company.kill(name, away_seconds=seconds)
        return "all", seconds

    def _kill_child(self, kind: str) -> tuple[str, float]:
        name = self._one_of(kind)
        if name:
            self.company.members[name].kill_child()
        return name, 0.0

    def _end(self, kind: str) -> tuple[str, float]:
        name = self._one_of(kind)
        if name:
            self.company.end(name, away_seconds=0.0)
        return name, 0.0

    def _pause(self, kind: str) -> tuple[str, float]:
        name = self._one_of(kind)
        if not name or name in self._paused:
            return "", 0.0
        long = self.chance.random() < self.temper.long_share
        seconds = LONG_PAUSE_SECONDS if long else self._draw(self.temper.sleep)
        self._paused.add(name)
        self.company.pause(name)
        self._in(seconds, lambda: self._wake(name))
        return name, seconds

    def _wake(self, name: str) -> None:
        self._paused.discard(name)
        self.company.resume(name)

    def _empty(self, kind: str) -> tuple[str, float]:
        name = self._one_of(kind)
        service = self.company.services.get(name)
        if not isinstance(service, PrivateRedis) or name in self._paused or not service.is_running:
            return "", 0.0
        with suppress(redis.RedisError):  # Redis may just be starting, empty
            service.flush()
        return name, 0.0

    def _cut(self, _kind: str) -> tuple[str, float]:
        return f"{self.proxy.cut(self.chance.choice((0.1, 0.5, 1.0)))} sockets", 0.0

    def _task(self, _kind: str) -> tuple[str, float]:
        """Run each scheduled task once now: by schedule they run too rarely to meet a fault."""
        for task in self.company.tasks:
            self.send_task(task)
        return "workers", 0.0

    def _hush(self, _kind: str) -> tuple[str, float]:
        seconds = self._draw(self.temper.sleep)
        self.proxy.hush()
        self._in(seconds, self.proxy.speak)
        if self.chance.random() < 0.5:  # otherwise the bytes that were held back pass, late
            self._in(seconds * 0.9, self._cut_all)
        return "sockets", seconds

    def _cut_all(self) -> None:
        self.proxy.cut(1.0)

    def _one_of(self, kind: str) -> str:
        names = self.company.names(kind)
        return self.chance.choice(names) if names else ""

    def _draw(self, span: tuple[float, float]) -> float:
        return self.chance.uniform(*span)

    def _in(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._count), action))

    def _do_what_is_due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()


FAULTS: dict[str, Callable[[Nemesis, str], tuple[str, float]]] = {
    "kill": Nemesis._kill,
    "kill-all": Nemesis._kill_all,
    "kill-child": Nemesis._kill_child,
    "end": Nemesis._end,
    "pause": Nemesis._pause,
    "empty": Nemesis._empty,
    "cut": Nemesis._cut,
    "hush": Nemesis._hush,
    "tasks": Nemesis._task,
}
DECK = {
    "kill node": 3,
    "kill worker": 2,
    "kill beat": 1,
    "kill redis": 1,
    "kill postgres": 2,
    "kill agents": 2,
    "kill-all hub": 1,
    "kill-child worker": 2,
    "end node": 1,
    "end worker": 1,
    "pause node": 2,
    "pause worker": 2,
    "pause beat": 1,
    "pause redis": 1,
    "pause postgres": 1,
    "pause agents": 1,
    "empty redis": 1,
    "cut sockets": 2,
    "hush sockets": 1,
    "tasks worker": 4,  # at an unscheduled time
}
ALWAYS_THERE = {"hub", "sockets"}
