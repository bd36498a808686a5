"""Find the current session of an agent and the node that serves it."""

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
        .values_list("agent_id", "session_id", "node__channel", "live", "taker")
    )
)


@dataclass(frozen=True, slots=True)
class Route:
    """The current session of an agent, and the channel of its node.

    `live` is true while that node has a lease. `taker` is the first of the sessions that the
    process of the agent has resumed in turn; what one of them took counts for all.
    """

    session: str
    channel: str
    live: bool
    taker: str = ""


def ask_routes(agents: Iterable[str]) -> Asked:
    """Return the query for the routes of these agents; read its rows with `routes_of`.

    Leases are compared with the database's clock.
    """
    return _ROUTES.ask(set(agents))


def routes_of(asked: Asked) -> dict[str, Route]:
    """Return the routes that `ask_routes` found, by agent; leave out agents without a session."""
    return {
        agent: Route(name := str(session), channel, live, taker or name)
        for agent, session, channel, live, taker in asked.rows()
    }


def load_routes(agents: Iterable[str]) -> dict[str, Route]:
    """Return the routes of these agents, in one query; agents without a session are left out."""
    return routes_of(ask_routes(agents))
