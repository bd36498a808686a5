"""Which agents are connected, for the registry, which asks through `registry.hooks`."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models.functions import Now


def close_sockets(agents: Collection[str], code: str) -> None:
    """Close the sockets of `agents` on every node, with `code`, after the commit under way."""
    from messaging.layer import events  # models are not loaded yet when the apps get ready

    events.publish_close_on_commit(agents, code)


def online_agents(agents: Collection[str]) -> set[str]:
    """Return those of `agents` whose current session is on a node with a lease."""
    from messaging.models import Presence

    live = Presence.objects.filter(agent_id__in=agents, node__lease_until__gt=Now())
    return set(live.values_list("agent_id", flat=True))
