"""Workers die at every place where it matters, and a node is frozen for longer than its lease."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atp import ATPClient
from tests.cast import broadcast
from tests.crash.company import FAILPOINTS
from tests.identities import player
from tests.production.fleet import Fleet, wait_until
from tests.production.frozen import freeze_and_wake
from tests.production.impatient import ATP_LEASE_SECONDS
from tests.production.load import assert_nothing_has_a_gap, requests_survive
from tests.production.outages.conftest import Witness

PASSING = 8  # at which an armed worker dies; an envelope that kills four in a row is refused
PASSINGS = {"before_parse": 40, "half_way_through_broadcast": 1}  # many a batch, and few at all
REQUESTS = 100
ACCEPTED_SECONDS = 10.0  # at most, from sending to the receipt


async def test_it_outlives_workers_that_die_at_every_place(
    fleet: Fleet, agents: list[Path], witness: Witness
) -> None:
    """One worker for each failpoint, beside two that live."""
    places = FAILPOINTS["worker"]
    calling = witness(fleet.nodes[0], agents[2])
    for place in places:
        fleet.start_worker(place, failpoints=f"{place}:{PASSINGS.get(place, PASSING)}")

    def until_all_have_died() -> None:
        alive = set(places)

        def one_dies() -> bool:
            calling.submit(broadcast(player(agents[2])))
            for place in [p for p in alive if _has_died(fleet, p)]:
                alive.discard(place)
                fleet.kill_worker(place)  # it would start another child that dies
            return not alive

        wait_until(one_dies, seconds=60)

    try:
        await requests_survive(fleet, agents, until_all_have_died, requests=REQUESTS)
    finally:
        for place in fleet.workers.keys() & set(places):
            fleet.kill_worker(place)


async def test_it_fences_a_node_that_was_frozen_for_longer_than_its_lease(
    fleet: Fleet, tmp_path: Path
) -> None:
    agents = fleet.enrol(2, tmp_path)  # to whom nobody wrote before
    await freeze_and_wake(fleet, agents, seconds=ATP_LEASE_SECONDS + 1)


@pytest.mark.parametrize("place", ["before_insert", "before_commit"])
async def test_it_goes_on_without_a_worker_that_stopped_within_its_transaction(
    fleet: Fleet, agents: list[Path], place: str
) -> None:
    """It holds locks of what it stores, and before its commit the log lock; nobody can wake it."""
    fleet.start_worker("stops", failpoints=f"stop@{place}:1")
    log = fleet.folder.parent / "stops.log"
    try:
        async with ATPClient.from_identity_file(fleet.at(0, agents[2])) as client:
            while "this process stops here" not in log.read_text():
                async with asyncio.timeout(ACCEPTED_SECONDS):
                    sent = await client.send_notification(agents[1].stem, {"n": 0})
                assert sent.status == "accepted"
            async with asyncio.timeout(ACCEPTED_SECONDS):
                sent = await client.send_notification(agents[1].stem, {"n": 1})
            assert sent.status == "accepted"
    finally:
        fleet.kill_worker("stops")
        log.unlink()
    assert_nothing_has_a_gap(fleet)


def _has_died(fleet: Fleet, place: str) -> bool:
    return f"failpoint {place}: " in (fleet.folder.parent / f"{place}.log").read_text()
