"""Agents on different nodes are agents of one hub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atp import ATPClient
from tests.production.fleet import Fleet

SOON_SECONDS = 20.0


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_SECONDS):
        while not holds():
            await asyncio.sleep(0.02)


def client(fleet: Fleet, node: int, identity: Path, inbox: list[Any] | None = None) -> ATPClient:
    made = ATPClient.from_identity_file(fleet.at(node, identity))

    async def keep(envelope: Any) -> None:
        if inbox is not None:
            inbox.append(envelope.payload["data"])

    made.on_message("notification", keep)
    made.on_message("broadcast", keep)
    return made


async def test_it_keeps_a_senders_order_from_node_to_node(fleet: Fleet, agents: list[Path]) -> None:
    inbox: list[Any] = []
    async with client(fleet, 1, agents[1], inbox), client(fleet, 0, agents[0]) as sender:
        sent = (sender.send_notification(agents[1].stem, {"n": n}) for n in range(300))
        receipts = await asyncio.gather(*sent)
        await until(lambda: len(inbox) >= 300)
    assert {receipt.status for receipt in receipts} == {"accepted"}
    assert inbox == [{"n": n} for n in range(300)]


async def test_it_broadcasts_to_the_agents_of_every_node(fleet: Fleet, agents: list[Path]) -> None:
    near: list[Any] = []
    far: list[Any] = []
    async with (
        client(fleet, 0, agents[1], near),
        client(fleet, 1, agents[2], far),
        client(fleet, 0, agents[0]) as sender,
    ):
        await sender.broadcast({"news": 1})
        await until(lambda: bool(near and far))
    assert near == far == [{"news": 1}]


async def test_it_closes_the_sockets_of_a_revoked_agent_on_any_node(
    fleet: Fleet, agents: list[Path]
) -> None:
    async with client(fleet, 0, agents[0]) as first, client(fleet, 1, agents[1]) as second:
        await asyncio.to_thread(
            fleet.run_python,
            "from registry.agents.actions.life import revoke_agent\n"
            "from registry.officers.actor import Actor\n"
            f"for agent in {[a.stem for a in agents[:2]]!r}:\n"
            "    revoke_agent(agent, actor=Actor.hub(), reason='a test')\n",
        )
        await until(lambda: first.get_trust_status()["ended"] is not None)
        await until(lambda: second.get_trust_status()["ended"] is not None)
        assert first.get_trust_status()["ended"] == "session.revoked"
        assert second.get_trust_status()["ended"] == "session.revoked"


async def test_it_gives_an_answer_to_a_second_process_on_another_node(
    fleet: Fleet, agents: list[Path]
) -> None:
    taken: list[Any] = []
    async with (
        client(fleet, 0, agents[0], taken) as running,
        client(fleet, 0, agents[1]) as other,
        ATPClient.from_identity_file(fleet.at(1, agents[0]), send_only=True) as tool,
    ):

        async def answer(envelope: Any, respond: Any) -> None:
            await respond({"echo": envelope.data})

        other.on_message("request", answer)
        asked = [tool.send_request(agents[1].stem, n) for n in range(50)]
        assert [one.data["echo"] for one in await asyncio.gather(*asked)] == list(range(50))
        assert tool.get_trust_status()["send_only"]
        await other.send_notification(agents[0].stem, {"still": "there"})
        await until(lambda: bool(taken))
        assert running.get_trust_status()["ended"] is None


async def test_it_lets_a_session_be_taken_over_from_another_node(
    fleet: Fleet, agents: list[Path]
) -> None:
    earlier: list[Any] = []
    later: list[Any] = []
    async with client(fleet, 0, agents[0], earlier) as old, client(fleet, 0, agents[1]) as sender:
        await sender.send_notification(agents[0].stem, {"n": 1})
        await until(lambda: bool(earlier))
        async with client(fleet, 1, agents[0], later):
            await until(lambda: old.get_trust_status()["ended"] is not None)
            await sender.send_notification(agents[0].stem, {"n": 2})
            await until(lambda: {"n": 2} in later)
        assert old.get_trust_status()["ended"] == "session.superseded"
    assert earlier == [{"n": 1}]
