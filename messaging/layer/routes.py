"""Find the sessions of an agent and the nodes that serve them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Q
from django.db.models.functions import Now

from messaging.models import Presence, SendOnlySession
from registry.storage.compiled import Compiled
from registry.storage.round_trips import Asked

_ROUTES = Compiled(
    lambda agents: (
        Presence.objects.filter(agent__id__any_of=agents)
        .annotate(live=Q(node__lease_until__gt=Now()))
        .values_list("agent_id", "session_id", "node__channel", "live", "taker")
    )
)


_SEND_ONLY = Compiled(
    lambda agents: SendOnlySession.objects.filter(
        agent__id__any_of=agents, node__lease_until__gt=Now()
    ).values_list("agent_id", "id", "node__channel", "taker")
)


@dataclass(frozen=True, slots=True)
class Route:
    """A session of an agent, and the channel of its node.

    `live` is true while that node has a lease. `taker` is the first of the sessions that the
    process of the agent has resumed in turn; what one of them took counts for all.
    """

    session: str
    channel: str
    live: bool
    taker: str = ""


def ask_routes(agents: Iterable[str]) -> Asked:
    """Return the query for the sessions that take the agents' mail; read it with `routes_of`.

    Leases are compared with the database's clock.
    """
    return _ROUTES.ask(set(agents))


def routes_of(asked: Asked) -> dict[str, Route]:
    """Return the routes that `ask_routes` found, by agent; leave out agents without a session."""
    return {
        agent: Route(name := str(session), channel, live, taker or name)
        for agent, session, channel, live, taker in asked.rows()
    }


def ask_send_only(agents: Iterable[str]) -> Asked:
    """Return the query for the live sessions that only send; read it with `send_only_of`."""
    return _SEND_ONLY.ask(set(agents))


def send_only_of(asked: Asked) -> dict[str, list[Route]]:
    """Return the sessions that `ask_send_only` found, by agent."""
    found: dict[str, list[Route]] = {}
    for agent, session, channel, taker in asked.rows():
        name = str(session)
        found.setdefault(agent, []).append(Route(name, channel, live=True, taker=taker or name))
    return found


def load_send_only(agents: Iterable[str]) -> dict[str, list[Route]]:
    """Return the live sessions of these agents that only send, in one query, by agent."""
    return send_only_of(ask_send_only(agents))


def load_routes(agents: Iterable[str]) -> dict[str, Route]:
    """Return the routes of these agents, in one query; agents without a session are left out."""
    return routes_of(ask_routes(agents))


def live_sessions(agents: Iterable[str]) -> set[str]:
    """Return the sessions of these agents whose envelopes count, those that only send too."""
    agents = set(agents)
    taking = {route.session for route in load_routes(agents).values() if route.live}
    sending = load_send_only(agents).values()
    return taking.union(route.session for routes in sending for route in routes)
