"""How many sessions an agent may open: each one leaves entries in the trail."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.db import connection
from django.db.models import Count, Min
from django.db.models.functions import Now

from atp.errors import FlowTooMany
from messaging.models import SendOnlySession, Session

LOGIN_LOCK = 0x4154504C00000000  # PostgreSQL advisory locks: this and the CRC of an agent's id
LOGINS_WINDOW_SECONDS = 60  # in which an agent's logins are counted
CLOSING_SECONDS = 1.0  # until the hub has noted the end of a session whose socket closed

_Kind = tuple[str, bool]  # an agent, and whether the session only sends


def lock_logins(agents: Collection[str]) -> None:
    """Let one transaction at a time count and open the sessions of an agent, over all nodes.

    SQLite has one writer anyway. No other code takes these locks, and each transaction takes them
    in the same order, so no two can wait for each other.
    """
    if connection.vendor == "postgresql":
        keys = sorted(LOGIN_LOCK ^ zlib.crc32(agent.encode("ascii")) for agent in agents)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(k) FROM unnest(%s::bigint[]) k", [keys])


@dataclass(slots=True)
class LoginLimits:
    """The sessions that some agents have opened within a minute, and those open that only send.

    Sessions that only send are counted by themselves: a flood of them keeps out no session that
    takes mail.
    """

    now: float
    opened: dict[_Kind, tuple[int, float]]  # how many, and when the oldest of them was opened
    send_only: Counter[str]

    @classmethod
    def load(cls, agents: Collection[str], now: float) -> LoginLimits:
        """Count the sessions of these agents; the caller holds their login locks."""
        since = datetime.fromtimestamp(now - LOGINS_WINDOW_SECONDS, UTC)
        rows = Session.objects.filter(agent_id__in=agents, opened_at__gt=since).order_by()
        found = rows.values_list("agent_id", "send_only")
        opened = {
            (agent, send_only): (count, oldest.timestamp())
            for agent, send_only, count, oldest in found.annotate(Count("id"), Min("opened_at"))
        }
        live = SendOnlySession.objects.filter(agent_id__in=agents, node__lease_until__gt=Now())
        return cls(now, opened, Counter(live.values_list("agent_id", flat=True)))

    def excess(self, agent: str, *, send_only: bool) -> FlowTooMany | None:
        """Return why the agent may not open such a session now; `None` if it may."""
        count, oldest = self.opened.get((agent, send_only), (0, self.now))
        if count >= settings.ATP_LOGINS_PER_MINUTE:
            wait = oldest + LOGINS_WINDOW_SECONDS - self.now
            return FlowTooMany(
                f"this agent has logged in {settings.ATP_LOGINS_PER_MINUTE} times within a minute",
                retry_after=max(1.0, round(wait, 1)),
            )
        if send_only and self.send_only[agent] >= settings.ATP_SEND_ONLY_SESSIONS:
            return FlowTooMany(
                f"this agent has {settings.ATP_SEND_ONLY_SESSIONS} sessions that only send; close"
                " one of them",
                retry_after=CLOSING_SECONDS,
            )
        return None

    def enter(self, agent: str, *, send_only: bool) -> None:
        """Count one more session of the agent."""
        count, oldest = self.opened.get((agent, send_only), (0, self.now))
        self.opened[agent, send_only] = count + 1, oldest
        self.send_only[agent] += send_only
