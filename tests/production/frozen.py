"""Freeze a node for longer than its lease: it does no harm after it wakes, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

from tests.production.fleet import Fleet, wait_until
from tests.production.load import assert_nothing_has_a_gap
from tests.production.test_across_nodes import client, until

PATIENCE_SECONDS = 30.0  # after the node has continued


async def freeze_and_wake(fleet: Fleet, agents: list[Path], *, seconds: float) -> None:
    """Freeze node 1 for `seconds`, longer than a lease, while agents exchange messages.

    Envelopes to its agent wait meanwhile. Envelopes that its agent sent and the node had not read
    are sent again by the SDK, in another session. Both arrive once.
    """
    there: list[Any] = []
    here: list[Any] = []
    async with (
        client(fleet, 1, agents[1], there) as frozen,
        client(fleet, 0, agents[0], here) as other,
    ):
        before = frozen.get_trust_status()["session"]
        fleet.nodes[1].process.send_signal(signal.SIGSTOP)
        frozen_at = time.monotonic()
        try:
            patience = {"timeout": round(1000 * (seconds + PATIENCE_SECONDS))}
            sending = frozen.send_notification(agents[0].stem, {"n": 0}, patience)
            unread = asyncio.create_task(sending)
            await other.send_notification(agents[1].stem, {"n": 1})
            await asyncio.to_thread(
                wait_until,
                lambda: not _has_session(fleet, agents[1].stem, before),
                seconds=seconds + 20,
            )
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - frozen_at)))
        finally:
            fleet.nodes[1].process.send_signal(signal.SIGCONT)
        await until(lambda: frozen.get_trust_status()["session"] not in {None, before})
        await other.send_notification(agents[1].stem, {"n": 2})
        await until(lambda: {"n": 2} in there)
        assert (await unread).status == "accepted"
        await until(lambda: bool(here))
    assert there == [{"n": 1}, {"n": 2}]
    assert here == [{"n": 0}]
    assert_nothing_has_a_gap(fleet)


def _has_session(fleet: Fleet, agent: str, session: str) -> bool:
    """Return whether that session is still the agent's current one."""
    rows = fleet.query(
        "SELECT 1 FROM messaging_presence p JOIN messaging_node n ON n.id = p.node_id"
        " WHERE p.agent_id = %s AND p.session_id::text = %s AND n.lease_until > now()",
        agent,
        session,
    )
    return bool(rows)
