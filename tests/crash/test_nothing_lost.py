"""The short form of `make crash`, and that its checker catches a hub that loses mail."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash.nemesis import Temper
from tests.crash.report import table
from tests.crash.run import Engines, Outcome, Plan, run
from tests.services import PrivatePostgres, PrivateRedis

SECONDS = 10.0
MUTANT_SECONDS = 3.0
HASTY = Temper(between=(0.2, 0.9), away=(0.1, 0.6), sleep=(0.3, 1.5), long_share=0.0)
NO_FAULTS = Temper(between=(3600.0, 3600.0))
RESTLESS = {"notify": 60, "ask": 20, "broadcast": 5, "away": 15}


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    with PrivatePostgres() as postgres, PrivateRedis() as redis:
        yield Engines(postgres, redis)


def test_it_keeps_what_it_accepted_whatever_dies(engines: Engines, tmp_path: Path) -> None:
    plan = Plan(SECONDS, seed=7, processes=2, temper=HASTY, patience_ms=8_000)
    outcome = run(plan, tmp_path, engines)
    print(table(outcome))
    assert outcome.violations == []
    assert len(outcome.blows) >= 8
    assert sum(1 for log in outcome.logs for _ in log.events) > 500


def test_rejects_a_hub_that_tells_too_early_and_one_that_acknowledges_for_others(
    tmp_path: Path,
) -> None:
    def broken_rules(mutant: str) -> set[str]:
        folder = tmp_path / mutant
        folder.mkdir()
        return {violation.rule for violation in _run_of_mutant(mutant, folder).violations}

    mutants = ("receipt_before_commit", "acknowledged_for_them")
    with ThreadPoolExecutor(len(mutants)) as pool:
        too_early, for_others = pool.map(broken_rules, mutants)
    assert "lost" in too_early
    assert "acknowledged" in for_others


def _run_of_mutant(mutant: str, folder: Path) -> Outcome:
    """One process on SQLite without injected faults."""
    plan = Plan(
        MUTANT_SECONDS,
        seed=7,
        processes=1,
        turns=RESTLESS,
        temper=NO_FAULTS,
        armed_share=0.0,
        mutant=mutant,
        patience_ms=3_000,
        settle_seconds=20.0,
    )
    return run(plan, folder, None)
