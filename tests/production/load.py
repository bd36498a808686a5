"""Send requests between two agents on two nodes, while faults hit the hub."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atp import ATPClient, ATPError
from tests.production.fleet import Fleet

UNDER_WAY = 40
TIMEOUT_MS = 90_000  # longer than any restart takes


async def requests_survive(
    fleet: Fleet, agents: list[Path], nemesis: Callable[[], None], *, requests: int = 400
) -> None:
    """Send requests from node 0 to node 1, and run `nemesis` in a thread meanwhile.

    It sends until the nemesis has finished. Each request must be answered and handled once. The
    streams and the trail must have no gap.
    """
    handled: Counter[int] = Counter()
    outcomes: Counter[str] = Counter()

    async def answer(envelope: Any, respond: Any) -> None:
        handled[envelope.payload["data"]["n"]] += 1
        await respond({"echo": envelope.payload["data"]["n"]})

    answering = ATPClient.from_identity_file(fleet.at(1, agents[1]))
    answering.on_message("request", answer)
    asking = ATPClient.from_identity_file(fleet.at(0, agents[0]))
    async with answering, asking:
        under_way = asyncio.create_task(_ask(asking, agents[1].stem, requests // 2, outcomes))
        await asyncio.sleep(0.3)
        happening = asyncio.create_task(asyncio.to_thread(nemesis))
        sent = await under_way
        while sent < requests or not happening.done():
            sent += await _ask(asking, agents[1].stem, 40, outcomes, first=sent)
        await happening
    assert outcomes == {"answered": sent}
    assert handled == dict.fromkeys(range(sent), 1)
    assert_nothing_has_a_gap(fleet)


async def _ask(
    client: ATPClient, target: str, count: int, outcomes: Counter[str], *, first: int = 0
) -> int:
    room = asyncio.Semaphore(UNDER_WAY)

    async def ask(n: int) -> None:
        async with room:
            try:
                answer = await client.send_request(target, {"n": n}, {"timeout": TIMEOUT_MS})
                outcomes["answered" if answer.data == {"echo": n} else "wrong"] += 1
            except ATPError as problem:
                outcomes[problem.code] += 1

    await asyncio.gather(*(ask(n) for n in range(first, first + count)))
    return count


def assert_nothing_has_a_gap(fleet: Fleet) -> None:
    streams = fleet.query(
        "SELECT recipient_id, stream, count(*), min(seq), max(seq) FROM messaging_delivery"
        " WHERE seq IS NOT NULL GROUP BY recipient_id, stream"
    )
    assert streams
    for recipient, stream, count, first, last in streams:
        assert (first, last) == (1, count), f"a gap in {stream} of {recipient}"
    ((count, first, last),) = fleet.query(
        "SELECT count(*), min(position), max(position) FROM registry_entry"
    )
    assert (first, last) == (0, count - 1)
