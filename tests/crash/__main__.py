"""`make crash`: kill processes of all kinds at random; check that no accepted envelope is lost.

    ATP_CRASH_SECONDS=180 ATP_CRASH_SEED=7 python -m tests.crash

The exit code is 1 if a promise was broken. Then the logs stay in var/crash/, named by the seed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.crash.engines import Engines, Storage, private_engines, storage_that_fills
from tests.crash.nemesis import Temper
from tests.crash.report import summary, table
from tests.crash.run import Plan, run
from tests.sources import ROOT

SECONDS = 540.0
EMBEDDED_SHARE = 0.2  # of the time, for a hub of one process
SEEDS = 2**31
TEMPER = Temper(between=(0.5, 5.0))


def main() -> int:
    seed = int(os.environ.get("ATP_CRASH_SEED") or secrets.randbelow(SEEDS))
    seconds = float(os.environ.get("ATP_CRASH_SECONDS") or SECONDS)
    end_in_order()
    print(f"crash: ATP_CRASH_SEED={seed}, {seconds:g} s of faults in all")
    of_one_process = seconds * EMBEDDED_SHARE
    try:
        with storage_that_fills() as storage, private_engines(storage) as engines:
            kept = _crash(seed, seconds - of_one_process, engines, storage)
    except pytest.skip.Exception as missing:
        sys.exit(str(missing))
    with storage_that_fills() as storage:
        kept = _crash(seed, of_one_process, None, storage) and kept
    print("Nothing lost." if kept else "Not as promised.")
    return 0 if kept else 1


def _crash(seed: int, seconds: float, engines: Engines | None, storage: Storage) -> bool:
    """Do one run and print its table; return whether the hub kept its promises."""
    plan = Plan(seconds, seed, temper=TEMPER, processes=4 if engines else 2)
    profile = "production" if engines else "embedded"
    folder = fresh_folder(ROOT / "var" / "crash" / f"{seed}-{profile}")
    outcome = run(plan, folder, engines, storage)
    print(f"\n{profile}\n{table(outcome)}\n", flush=True)
    figures = {"at": round(time.time()), "profile": profile, **summary(outcome)}
    note(figures, ROOT / "var" / "crash.jsonl")
    if outcome.violations or outcome.slow:
        print(f"  The logs are in {folder.relative_to(ROOT)}.\n")
    else:
        shutil.rmtree(folder)
    return not outcome.violations


def end_in_order() -> None:
    """Make SIGTERM raise an exception, so that processes are stopped and folders removed."""

    def leave(*_: object) -> None:
        sys.exit("ended by SIGTERM")

    signal.signal(signal.SIGTERM, leave)


def fresh_folder(folder: Path) -> Path:
    """Return the folder, emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def note(figures: dict[str, object], path: Path) -> None:
    """Append a line of JSON to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    sys.exit(main())
