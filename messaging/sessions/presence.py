"""Which agents are connected, for the registry, which asks through `registry.hooks`."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from registry.hooks import LiveSession


def close_sockets(agents: Collection[str], code: str) -> None:
    """Close the sockets of `agents` on every node, with `code`, after the commit under way."""
    from messaging.layer import events  # models are not loaded yet when the apps get ready

    events.publish_close_on_commit(agents, code)


def online_agents(agents: Collection[str]) -> set[str]:
    """Return those of `agents` whose session that takes mail is on a node with a lease."""
    from messaging.models import Presence

    live = Presence.objects.filter(agent_id__in=agents, node__lease_until__gt=Now())
    return set(live.values_list("agent_id", flat=True))


def open_sockets(agents: Collection[str]) -> int:
    """Return how many live sessions `agents` have, on nodes with a lease."""
    from messaging.models import Presence, SendOnlySession

    kinds = (Presence.objects, SendOnlySession.objects)
    live = (rows.filter(agent_id__in=agents, node__lease_until__gt=Now()) for rows in kinds)
    return sum(rows.count() for rows in live)


def live_sessions(agent: str) -> list[LiveSession]:
    """Return the live sessions of an agent, the oldest first."""
    from messaging.models import Presence, SendOnlySession, Session

    current = Presence.objects.filter(agent_id=agent, session_id=OuterRef("pk"))
    sending = SendOnlySession.objects.filter(agent_id=agent, pk=OuterRef("pk"))
    rows = Session.objects.filter(
        Q(Exists(current)) | Q(Exists(sending)),
        agent_id=agent,
        closed_at=None,
        node__lease_until__gt=Now(),
    )
    return [
        LiveSession(str(row.id), row.send_only, row.opened_at, row.remote_address, row.client)
        for row in rows.order_by("opened_at")
    ]
