"""One run of the benchmarks: which figures, on which engines, beside which yardsticks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.fleet import RunningHub
from benchmarks.report import Figure
from benchmarks.yardsticks import Yardsticks


@dataclass(frozen=True, slots=True)
class Run:
    """Where a figure is measured, and what it is held against."""

    profile: str
    yardsticks: Yardsticks

    def rate(self, name: str, value: float, unit: str) -> Figure:
        """Something a second, beside what one core verifies in one."""
        ratio = value / self.yardsticks.ed25519
        return Figure(name, self.profile, value, unit, "ed25519.verify", ratio)

    def wait(self, name: str, milliseconds: float, *, messages: int = 1) -> Figure:
        """A wait for so many messages, beside what a bare server takes to echo them."""
        echoes = messages * 1000 / self.yardsticks.echo
        return Figure(name, self.profile, milliseconds, "ms", "asgi.echo", milliseconds / echoes)

    def cpu(self, name: str, milliseconds: float) -> Figure:
        """CPU time of a thousand of something, beside that of verifying a thousand signatures."""
        ratio = milliseconds / (1e6 / self.yardsticks.ed25519_cpu)
        return Figure(name, self.profile, milliseconds, "ms/1000", "ed25519.cpu", ratio)


@dataclass(frozen=True, slots=True)
class Bench:
    """Figures whose names begin with `name`, measured together on a hub with so many agents."""

    name: str
    says: str
    measure: Callable[[RunningHub, Run], list[Figure]]
    agents: int
    nodes: int = 1  # in production; the embedded hub has one
    by_default: bool = True
    alone: bool = False  # on a hub that nothing else was measured on

    def wanted(self, only: tuple[str, ...], *, everything: bool) -> bool:
        """Whether its name begins with one of those asked for, or one of those with its name."""
        if not only:
            return everything or self.by_default
        return any(self.name.startswith(o) or o.startswith(f"{self.name}.") for o in only)
