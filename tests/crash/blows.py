"""The faults that happened in a run, with their begin and end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault that happened to `victim`, from `at` (seconds since 1970), for some seconds.

    `alone` says that no other fault was begun until something was accepted again.
    """

    at: float
    fault: str
    victim: str
    seconds: float
    alone: bool = False

    @property
    def ends_at(self) -> float:
        return self.at + self.seconds


@dataclass(slots=True)
class Blows:
    """The faults of a run, in the order of their begin."""

    _all: list[Blow] = field(default_factory=list)

    def __iter__(self) -> Iterator[Blow]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def newest(self) -> Blow | None:
        return self._all[-1] if self._all else None

    def note(self, fault: str, victim: str, seconds: float, *, alone: bool = False) -> None:
        """Note a fault that begins now, and how long it is to last."""
        self._all.append(Blow(round(time.time(), 3), fault, victim, round(seconds, 2), alone))

    def ended(self, fault: str) -> None:
        """Note that the last fault of this kind ends now, later than it was to."""
        for number in reversed(range(len(self._all))):
            if (blow := self._all[number]).fault == fault:
                self._all[number] = replace(blow, seconds=round(time.time() - blow.at, 2))
                return

    def all_end(self) -> None:
        """Note that the faults that were to last for longer end now."""
        now = time.time()
        self._all = [
            replace(blow, seconds=round(max(now - blow.at, 0.0), 2)) if blow.ends_at > now else blow
            for blow in self._all
        ]

    def write(self, path: Path) -> None:
        """Write a line of JSON for each fault."""
        path.write_text("".join(json.dumps(asdict(blow)) + "\n" for blow in self._all))
