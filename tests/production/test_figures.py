"""The nodes of a fleet show the measurements of the workers, which serve no HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from atp import ATPClient
from messaging.telemetry.telemetry import STAGES
from tests.production.fleet import Fleet

LETTERS = 20
SOON_SECONDS = 20.0

Sample = tuple[str, tuple[str, ...]]

ACCEPTED: Sample = ("atp_envelopes_total", ("", "accepted"))
PUSHED: Sample = ("atp_deliveries_total", ("pushed",))
READ: Sample = ("atp_deliveries_total", ("read",))


async def test_it_shows_what_workers_measured_on_the_node_that_asked_them(
    fleet: Fleet, agents: list[Path]
) -> None:
    inbox: list[Any] = []

    async def keep(envelope: Any) -> None:
        inbox.append(envelope)

    reading = ATPClient.from_identity_file(fleet.at(1, agents[1]))
    reading.on_message("notification", keep)
    before = [figures(fleet, node) for node in (0, 1)]
    async with reading, ATPClient.from_identity_file(fleet.at(0, agents[0])) as writing:
        await asyncio.gather(
            *(writing.send_notification(agents[1].stem, {"n": n}) for n in range(LETTERS))
        )
        async with asyncio.timeout(SOON_SECONDS):
            while len(inbox) < LETTERS:
                await asyncio.sleep(0.02)
    sending, receiving = (
        {name: value - old.get(name, 0.0) for name, value in figures(fleet, node).items()}
        for node, old in enumerate(before)
    )

    assert sending[ACCEPTED] == LETTERS
    assert not receiving.get(ACCEPTED)
    assert all(sending["atp_stage_seconds_count", (stage,)] for stage in STAGES)
    assert receiving[PUSHED] + receiving[READ] == LETTERS
    assert figures(fleet, 0)["atp_broker_up", ()] == 1


def figures(fleet: Fleet, node: int) -> dict[Sample, float]:
    """The samples of a node by name and the values of their labels, in the labels' order."""
    answer = httpx.get(f"{fleet.nodes[node].url}/metrics", timeout=SOON_SECONDS)
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, tuple(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }
