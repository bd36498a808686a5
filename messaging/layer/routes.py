"""Where agents are connected: the way to each agent's current session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Q
from django.db.models.functions import Now

from messaging.models import Presence
from registry.storage.compiled import Compiled
from registry.storage.round_trips import Asked

_ROUTES = Compiled(
    lambda agents: (
        Presence.objects.filter(agent__id__any_of=agents)
        .annotate(live=Q(node__lease_until__gt=Now()))
        .values_list("agent_id", "session_id", "node__channel", "live")
    )
)


@dataclass(frozen=True, slots=True)
class Route:
    """The session that counts for an agent, and the channel of its node.

    `live` is whether that node has a lease.
    """

    session: str
    channel: str
    live: bool


def ask_routes(agents: Iterable[str]) -> Asked:
    """Ask where these agents are connected, by the database's clock; `routes_of` reads it."""
    return _ROUTES.ask(set(agents))


def routes_of(asked: Asked) -> dict[str, Route]:
    """The routes that `ask_routes` asked for, by agent; an agent without a session has none."""
    return {
        agent: Route(str(session), channel, live) for agent, session, channel, live in asked.rows()
    }


def load_routes(agents: Iterable[str]) -> dict[str, Route]:
    """Read where these agents are connected."""
    return routes_of(ask_routes(agents))
