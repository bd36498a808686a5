"""Every node and worker is replaced under load, one after another, behind one address."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from atp import ATPClient
from tests.production.balancer import Balancer, balancer
from tests.production.fleet import Fleet
from tests.production.test_across_nodes import until

UNDER_WAY = 20  # notifications of the sender without a receipt
TIMEOUT_MS = 60_000


def behind(front: Balancer, identity: Path) -> ATPClient:
    """A client that connects to the balancer's address."""
    members = json.loads(identity.read_text())
    members["ws_url"] = f"ws://127.0.0.1:{front.port}/ws/agents/"
    moved = identity.with_name(f"{identity.stem}.behind.json")
    moved.write_text(json.dumps(members))
    return ATPClient.from_identity_file(moved)


def roll(fleet: Fleet) -> None:
    for number in range(len(fleet.nodes)):
        assert fleet.nodes[number].stop() == 0
        fleet.restart_node(number)
    for name in ("w0", "w1"):
        fleet.stop_worker(name)
        fleet.start_worker(name)


async def test_it_loses_nothing_when_every_process_is_replaced(
    fleet: Fleet, agents: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="atp")
    handled: list[int] = []
    receipts: Counter[str] = Counter()

    async def keep(envelope: Any) -> None:
        handled.append(envelope.payload["data"]["n"])

    async with balancer([node.port for node in fleet.nodes]) as front:
        receiver, sender = behind(front, agents[1]), behind(front, agents[0])
        receiver.on_message("notification", keep, ordered="sender")
        async with receiver, sender:
            rolling = asyncio.create_task(asyncio.to_thread(roll, fleet))
            sent = 0
            while not rolling.done():
                receipts += await _send(sender, agents[1].stem, range(sent, sent + UNDER_WAY))
                sent += UNDER_WAY
            await rolling
            await until(lambda: len(handled) >= sent)
            for agent in (receiver, sender):
                await until(lambda agent=agent: agent.get_trust_status()["connected"])  # type: ignore[misc]
    assert receipts == {"accepted": sent}
    assert handled == list(range(sent)), "in order, once, without a gap"
    told = [r.getMessage() for r in caplog.records if "connection ended" in r.getMessage()]
    assert len(told) >= 2, "each node that stopped had an agent"
    assert all("session.closed: the hub closed the connection" in line for line in told)
    assert len(front.served) == len(fleet.nodes), "both nodes had their turn"


async def _send(sender: ATPClient, target: str, numbers: range) -> Counter[str]:
    options = {"timeout": TIMEOUT_MS}
    sending = (sender.send_notification(target, {"n": n}, options) for n in numbers)
    return Counter(receipt.status for receipt in await asyncio.gather(*sending))
