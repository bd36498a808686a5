"""Processes are killed and replaced under load, and every request is answered once."""

from __future__ import annotations

import time
from pathlib import Path

from tests.production.fleet import Fleet
from tests.production.load import requests_survive


async def test_it_survives_the_kill_of_every_worker(fleet: Fleet, agents: list[Path]) -> None:
    def kill() -> None:
        for name in ("w0", "w1"):
            fleet.kill_worker(name)
            fleet.start_worker(name)

    await requests_survive(fleet, agents, kill)


async def test_it_survives_the_kill_of_a_node(fleet: Fleet, agents: list[Path]) -> None:
    def kill() -> None:
        for number in (1, 0):
            fleet.nodes[number].kill()
            fleet.restart_node(number)

    await requests_survive(fleet, agents, kill)


async def test_it_survives_an_emptied_redis(fleet: Fleet, agents: list[Path]) -> None:
    def flush() -> None:
        for _ in range(5):
            fleet.flush_redis()
            time.sleep(0.3)

    await requests_survive(fleet, agents, flush)


async def test_it_survives_a_rolling_restart(fleet: Fleet, agents: list[Path]) -> None:
    def roll() -> None:
        for number in (0, 1):
            assert fleet.nodes[number].stop() == 0
            fleet.restart_node(number)
        for name in ("w0", "w1"):
            fleet.stop_worker(name)
            fleet.start_worker(name)

    await requests_survive(fleet, agents, roll)
