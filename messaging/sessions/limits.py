"""How many sessions an agent may open: each one leaves entries in the trail."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from django.conf import settings
from django.db import connection
from django.db.models import Count, Min

from atp.errors import FlowTooMany
from messaging.models import Session
from messaging.sessions.proofs import ProvenLogin, RefusedLogin

LOGIN_LOCK = 0x4154504C00000000  # PostgreSQL advisory locks: this and the CRC of an agent's id
LOGINS_WINDOW_SECONDS = 60  # in which an agent's logins are counted


def lock_logins(agents: Collection[str]) -> None:
    """Let one transaction at a time count and open the sessions of an agent, over all nodes.

    SQLite has one writer anyway. No other code takes these locks, and each transaction takes them
    in the same order, so no two can wait for each other.
    """
    if connection.vendor == "postgresql":
        keys = sorted(LOGIN_LOCK ^ zlib.crc32(agent.encode("ascii")) for agent in agents)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(k) FROM unnest(%s::bigint[]) k", [keys])


def without_loops(proven: Sequence[ProvenLogin], now: float) -> list[ProvenLogin | RefusedLogin]:
    """Refuse agents that log in too often: each session leaves entries in the trail."""
    agents = {one.agent for one in proven}
    since = datetime.fromtimestamp(now - LOGINS_WINDOW_SECONDS, UTC)
    rows = Session.objects.filter(agent_id__in=agents, opened_at__gt=since).order_by()
    found = rows.values_list("agent_id").annotate(Count("id"), Min("opened_at"))
    lately = {agent: (count, oldest.timestamp()) for agent, count, oldest in found}
    judged: list[ProvenLogin | RefusedLogin] = []
    for one in proven:
        count, oldest = lately.get(one.agent, (0, now))
        if count >= settings.ATP_LOGINS_PER_MINUTE:
            wait = oldest + LOGINS_WINDOW_SECONDS - now
            judged.append(RefusedLogin(_looping(max(1.0, round(wait, 1))), one.agent))
        else:
            lately[one.agent] = count + 1, oldest
            judged.append(one)
    return judged


def _looping(wait_seconds: float) -> FlowTooMany:
    return FlowTooMany(
        f"this agent has logged in {settings.ATP_LOGINS_PER_MINUTE} times within a minute",
        retry_after=wait_seconds,
    )
