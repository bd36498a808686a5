"""The short form of `make crash`, and that its checker catches a hub that loses mail."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.agents import TURNS
from tests.crash.engines import Engines, Storage, private_engines
from tests.crash.nemesis import DECK, Temper
from tests.crash.report import table
from tests.crash.run import Plan, run
from tests.waits import result

SECONDS = 10.0
RUN_SECONDS = (3.0, 6.0, 12.0, 24.0)  # of a mutant's runs, until it is found out
MUTANT_SECONDS = 240.0  # the limit for all of them
# From these the hub takes seconds to heal; they have tests of their own in tests/production.
LONG_FELT = {"mute postgres", "mute broker", "stop worker", "fill disk"}
HASTY = Temper(
    between=(0.2, 0.9),
    away=(0.1, 0.6),
    sleep=(0.3, 1.5),
    long_share=0.0,
    rest_share=0.0,
    deck={fault: times for fault, times in DECK.items() if fault not in LONG_FELT},
)
NO_FAULTS = Temper(between=(3600.0, 3600.0))
RESTLESS = {"notify": 60, "ask": 20, "broadcast": 5, "away": 15}

# One process on SQLite.
MUTANT = Plan(
    RUN_SECONDS[0],
    seed=7,
    processes=1,
    turns=RESTLESS,
    temper=NO_FAULTS,
    armed_share=0.0,
    patience_ms=3_000,
    settle_seconds=20.0,
)


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    with private_engines(Storage()) as engines:
        yield engines


def test_it_keeps_what_it_accepted_whatever_dies(engines: Engines, tmp_path: Path) -> None:
    turns = {**TURNS, "murder": 0.3}  # one or two messages that kill their recipients
    plan = Plan(SECONDS, seed=7, processes=2, turns=turns, temper=HASTY, patience_ms=8_000)
    outcome = run(plan, tmp_path, engines)
    print(table(outcome))
    assert outcome.violations == []
    assert len(outcome.blows) >= 8
    assert sum(1 for log in outcome.logs for _ in log.events) > 500


def test_rejects_a_hub_that_tells_too_early_and_one_that_acknowledges_for_others(
    tmp_path: Path,
) -> None:
    too_early = replace(MUTANT, mutant="receipt_before_commit")
    for_others = replace(MUTANT, mutant="acknowledged_for_them")
    with ThreadPoolExecutor(2) as pool:
        lost = pool.submit(_convict, too_early, "lost", tmp_path / "early")
        acknowledged = pool.submit(_convict, for_others, "acknowledged", tmp_path / "others")
        assert result(lost, "a lost envelope", seconds=MUTANT_SECONDS) == "lost"
        told = result(acknowledged, "an ack of nobody", seconds=MUTANT_SECONDS)
        assert told == "acknowledged"


def test_rejects_agents_that_acknowledge_what_they_have_not_handled(tmp_path: Path) -> None:
    kills = Temper(between=(0.3, 1.0), away=(0.1, 0.3), deck={"kill agents": 1})
    plan = replace(MUTANT, agents_module="tests.crash.agent_mutant", temper=kills)
    assert _convict(plan, "handled", tmp_path / "agents") == "handled"


def _convict(plan: Plan, rule: str, folder: Path) -> str:
    """Run a mutant, longer each time, until the checker finds what it breaks.

    On a busy machine a short run may end before the mutant comes to its fault.
    """
    found: set[str] = set()
    for seconds in RUN_SECONDS:
        own = folder / f"{seconds:g}"
        own.mkdir(parents=True)
        outcome = run(replace(plan, seconds=seconds), own, None)
        found = {one.rule for one in outcome.violations}
        if rule in found:
            return rule
    return f"none but {sorted(found)}"
