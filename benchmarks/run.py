"""One run of the benchmarks: its figures, its engines, its yardsticks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.fleet import RunningHub
from benchmarks.report import Figure
from benchmarks.yardsticks import Yardsticks


@dataclass(frozen=True, slots=True)
class Run:
    """The profile of a run, and the yardsticks that its figures are compared with."""

    profile: str
    yardsticks: Yardsticks

    def rate(self, name: str, value: float, unit: str) -> Figure:
        """Return a rate per second, compared with the signatures that one core verifies."""
        ratio = value / self.yardsticks.ed25519
        return Figure(name, self.profile, value, unit, "ed25519.verify", ratio)

    def wait(self, name: str, milliseconds: float, *, messages: int = 1) -> Figure:
        """Return a duration for so many messages, compared with a bare server that echoes them."""
        echoes = messages * 1000 / self.yardsticks.echo
        return Figure(name, self.profile, milliseconds, "ms", "asgi.echo", milliseconds / echoes)

    def cpu(self, name: str, milliseconds: float) -> Figure:
        """Return CPU time for a thousand operations, compared with verifying 1,000 signatures."""
        ratio = milliseconds / (1e6 / self.yardsticks.ed25519_cpu)
        return Figure(name, self.profile, milliseconds, "ms/1000", "ed25519.cpu", ratio)

    def cpu_of_one(self, name: str, milliseconds: float) -> Figure:
        """Return CPU time for one operation, compared with verifying one signature."""
        ratio = milliseconds / (1e3 / self.yardsticks.ed25519_cpu)
        return Figure(name, self.profile, milliseconds, "ms", "ed25519.cpu", ratio)


@dataclass(frozen=True, slots=True)
class Bench:
    """A group of figures whose names begin with `name`, measured on a hub with `agents` agents."""

    name: str
    says: str
    measure: Callable[[RunningHub, Run], list[Figure]]
    agents: int
    nodes: int = 1  # in production; the embedded hub has one
    by_default: bool = True
    alone: bool = False  # on a hub that no other benchmark has used

    def wanted(self, only: tuple[str, ...], *, everything: bool) -> bool:
        """Return whether to run it: a word of `only` begins its name, or begins with its name."""
        if not only:
            return everything or self.by_default
        return any(self.name.startswith(o) or o.startswith(f"{self.name}.") for o in only)
