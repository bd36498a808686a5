"""The nemesis: makes faults at random from a seed, and notes each one.

Each kind of fault comes once before any kind comes again. After a fault that may keep the whole hub
from work, the nemesis mostly waits until it works again, so that it can be told how long that took.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import redis

from tests.crash.agenda import Agenda
from tests.crash.blows import Blow, Blows
from tests.crash.company import Company
from tests.crash.lasting import Lasting
from tests.crash.proxy import Proxy
from tests.services import PrivateRedis

LONG_PAUSE_SECONDS = 12.0  # longer than a lease, ATP_LEASE_SECONDS
TICK_SECONDS = 0.05
LONGEST_REST_SECONDS = 40.0
STRAY_SECONDS = 1.0  # in which a receipt of before a fault's end may still come
UNDO_SECONDS = 60.0  # for an engine to come back, so that its faults can be undone


# How often each fault has its turn.
DECK = {
    "kill node": 3,
    "kill worker": 2,
    "kill beat": 1,
    "kill redis": 1,
    "kill postgres": 2,
    "kill agents": 2,
    "end agents": 2,
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
    "read-only postgres": 2,
    "mute postgres": 2,
    "mute layer": 2,
    "mute broker": 2,
    "stop worker": 2,
    "fill disk": 1,
}
# Faults by which the whole hub may stop to accept envelopes.
GRAVE = {
    "kill redis", "kill postgres", "kill-all hub", "pause redis", "pause postgres",
    "read-only postgres", "mute postgres", "mute layer", "mute broker", "stop worker", "fill disk",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Temper:
    """The settings of the nemesis: the time between faults, and how long faults last."""

    between: tuple[float, float] = (0.5, 4.0)
    away: tuple[float, float] = (0.1, 3.0)
    sleep: tuple[float, float] = (0.5, 4.0)
    long_share: float = 0.15  # of pauses, which are longer than a lease
    rest_share: float = 0.7  # of grave faults, after which no other is made until it works again
    deck: Mapping[str, int] = field(default_factory=lambda: DECK)


@dataclass(slots=True)
class Rest:
    """The time after a fault in which no other is made: until something is accepted again."""

    blow: Blow
    accepted: Callable[[], int]  # how many envelopes, as far as their senders know
    _before: int | None = None

    def is_over(self) -> bool:
        now = time.time()
        if now < self.blow.ends_at + STRAY_SECONDS:
            return False
        if self._before is None:
            self._before = self.accepted()
        return self.accepted() > self._before or now > self.blow.ends_at + LONGEST_REST_SECONDS


@dataclass(slots=True)
class Nemesis:
    """The maker of faults in the company and the proxy."""

    company: Company
    proxy: Proxy
    chance: random.Random
    lasting: Lasting
    blows: Blows
    agenda: Agenda
    temper: Temper = field(default_factory=Temper)
    send_task: Callable[[str], None] = lambda _name: None
    accepted: Callable[[], int] = lambda: 0
    _paused: set[str] = field(default_factory=set)
    _rest: Rest | None = None

    def strike_for(self, seconds: float) -> None:
        """Make faults for so many seconds, then undo those that last."""
        ends = time.monotonic() + seconds
        deck: list[str] = []
        next_blow = time.monotonic() + self._draw(self.temper.between)
        while time.monotonic() < ends:
            self._go_on()
            if self._rests():
                next_blow = time.monotonic() + self._draw(self.temper.between)
            elif time.monotonic() >= next_blow:
                deck = deck or self._shuffled()
                self._strike(deck.pop())
                next_blow = time.monotonic() + self._draw(self.temper.between)
        while self._rests():
            self._go_on()
        self._undo()
        self.blows.all_end()
        self.blows.write(self.company.folder / "blows.jsonl")

    def _go_on(self) -> None:
        self.agenda.do_what_is_due()
        self.company.tend()
        time.sleep(TICK_SECONDS)

    def _rests(self) -> bool:
        newest = self.blows.newest
        if newest is not None and newest.alone:
            if self._rest is None or self._rest.blow.at != newest.at:
                self._rest = Rest(newest, self.accepted)
            self._rest.blow = newest  # its end may have moved
        return self._rest is not None and not self._rest.is_over()

    def _undo(self) -> None:
        until = time.monotonic() + UNDO_SECONDS
        self.lasting.is_ending = True
        self.agenda.do_all()
        while not self.agenda.is_empty:
            assert time.monotonic() < until, "an engine did not come back, so a fault lasts"
            self._go_on()
            self.agenda.do_all()

    def _shuffled(self) -> list[str]:
        """Return faults to be taken from the end: each kind once before any comes again."""
        deck: list[str] = []
        for turn in reversed(range(max(self.temper.deck.values()))):
            kinds = [
                f for f, times in self.temper.deck.items() if times > turn and self._has_victims(f)
            ]
            self.chance.shuffle(kinds)
            deck += kinds
        return deck

    def _has_victims(self, fault: str) -> bool:
        """Return the faults for this hub; a hub of one process has fewer."""
        kind = fault.partition(" ")[2]
        return kind in ALWAYS_THERE | self.lasting.kinds or bool(self.company.names(kind))

    def _strike(self, fault: str) -> None:
        what, _, kind = fault.partition(" ")
        victim, seconds = FAULTS[what](self, kind)
        if victim:
            alone = fault in GRAVE and self.chance.random() < self.temper.rest_share
            self.blows.note(fault, victim, seconds, alone=alone)

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
        self.agenda.after(seconds, lambda: self._wake(name))
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
        self.agenda.after(seconds, self.proxy.speak)
        if self.chance.random() < 0.5:  # otherwise the bytes that were held back pass, late
            self.agenda.after(seconds * 0.9, self._cut_all)
        return "sockets", seconds

    def _cut_all(self) -> None:
        self.proxy.cut(1.0)

    def _one_of(self, kind: str) -> str:
        names = self.company.names(kind)
        return self.chance.choice(names) if names else ""

    def _draw(self, span: tuple[float, float]) -> float:
        return self.chance.uniform(*span)


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
    "read-only": lambda nemesis, kind: nemesis.lasting.read_only(kind),
    "mute": lambda nemesis, kind: nemesis.lasting.mute(kind),
    "stop": lambda nemesis, kind: nemesis.lasting.stop(kind),
    "fill": lambda nemesis, kind: nemesis.lasting.fill(kind),
}
ALWAYS_THERE = {"hub", "sockets"}
