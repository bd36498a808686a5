"""Print figures as a table, and write one JSON object for each."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

BENCH_FILE = Path("var/bench.jsonl")
BUSY_LOAD = 0.7  # load average of a minute; above it, other programs disturb the figures


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value and its ratio to a yardstick, which is another figure of the same run."""

    bench: str
    profile: str
    value: float
    unit: str
    yardstick: str = ""
    ratio: float | None = None


def conditions(engines: str = "") -> str:
    """Return the time, the machine and its load in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z",
        f"Python {sys.version.split()[0]}",
        f"{platform.system()} {platform.machine()}",
        f"{cores} cores",
        engines,
        f"load average {os.getloadavg()[0]:.2f}",
    )
    return ", ".join(filter(None, parts))


def warn_if_busy() -> None:
    """Print a warning if other programs load the machine."""
    if os.getloadavg()[0] > BUSY_LOAD:
        print("the machine is busy: compare ratios only", flush=True)


def print_table(figures: Iterable[Figure]) -> None:
    """Print the figures as a table, one row each."""
    rows = list(figures)
    width = max(len(f.bench) for f in rows) + 2
    print(f"\n{'figure':<{width}}{'profile':<12}{'value':>12}  {'unit':<14}{'ratio':>8}  yardstick")
    for f in rows:
        ratio = f"{f.ratio:.3f}" if f.ratio is not None else ""
        print(
            f"{f.bench:<{width}}{f.profile:<12}{f.value:>12,.1f}  {f.unit:<14}{ratio:>8}"
            f"  {f.yardstick}"
        )


def append_jsonl(figures: Iterable[Figure], conditions: str, path: Path = BENCH_FILE) -> None:
    """Append one JSON object for each figure to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for figure in figures:
            file.write(json.dumps({**asdict(figure), "conditions": conditions}) + "\n")
