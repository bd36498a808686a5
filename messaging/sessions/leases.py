"""A node's lease, by the database's clock, and the node's reads of epoch and standing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from datetime import timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Q
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from messaging.models import Node, Presence, Session
from messaging.sessions.send_only import end_send_only
from registry.attestations.querysets import left_without_voucher
from registry.issuers.standing import issuer_standing
from registry.models import Hub


def _lease_end() -> Combinable:
    lease = timedelta(seconds=settings.ATP_LEASE_SECONDS)
    return ExpressionWrapper(Now() + lease, output_field=DateTimeField())


def take(node_id: uuid.UUID, name: str, channel: str) -> None:
    """Enter a node with a lease.

    On SQLite a hub is one process, which holds the lock file: a node before this one has ended,
    however quickly this one follows, and agents that come back take nothing over.
    """
    if connection.vendor == "sqlite":
        Node.objects.filter(lease_until__gt=Now()).update(lease_until=Now(), stopped_at=Now())
    Node.objects.create(
        id=node_id, name=name, channel=channel, started_at=Now(), lease_until=_lease_end()
    )


def renew(node_id: uuid.UUID) -> bool:
    """Renew a lease. False if it had run out, and its sessions with it; it is new then.

    A session that was fenced once stays so: its agent heard nothing of what it sent meanwhile, and
    what it sends next would come before that. So what ran out is renewed without its sessions.
    """
    ours = Node.objects.filter(id=node_id, stopped_at=None)  # or a late call would undo `release`
    held = ours.filter(lease_until__gt=Now()).update(lease_until=_lease_end())
    if not held:
        _begin_anew(node_id)
    return bool(held)


def _begin_anew(node_id: uuid.UUID) -> None:
    """Renew a lease that ran out; in the same transaction its sessions end to be current.

    Presences are locked in the order of agents, as everywhere.
    """
    with transaction.atomic():
        theirs = Presence.objects.select_for_update().filter(node_id=node_id)
        agents = list(theirs.order_by("agent_id").values_list("agent_id", flat=True))
        Presence.objects.filter(node_id=node_id, agent_id__in=agents).delete()
        end_send_only(node_id=node_id)
        Node.objects.filter(id=node_id, stopped_at=None).update(lease_until=_lease_end())


def release(node_id: uuid.UUID) -> None:
    """End a lease at once."""
    Node.objects.filter(id=node_id).update(lease_until=Now(), stopped_at=Now())


def carry_over_log() -> None:
    """Copy SQLite's write-ahead log into the database file, as far as readers allow.

    A passive checkpoint blocks neither readers nor the writer. PostgreSQL does this by itself.
    """
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")


def epoch() -> int:
    """The registry's epoch."""
    return Hub.objects.values_list("epoch", flat=True).get(pk=Hub.SINGLETON_ID)


def epoch_age() -> float | None:
    """Seconds since the registry's last change; `None` if it was before this was recorded."""
    hub = Hub.objects.annotate(now=Now()).values_list("now", "epoch_moved_at")
    now, moved_at = hub.get(pk=Hub.SINGLETON_ID)
    return None if moved_at is None else (now - moved_at).total_seconds()


def sessions_without_standing(sessions: Collection[str]) -> set[str]:
    """Those of `sessions` whose agent or key may no longer be connected."""
    now = time.time()
    standing = Session.objects.filter(
        Q(agent__status="active"),
        Q(agent__keys__kid=F("kid"), agent__keys__status="active"),
        id__in=list(sessions),
    )
    agents = {str(pk): agent for pk, agent in standing.values_list("id", "agent_id")}
    unvouched = left_without_voucher(set(agents.values()), issuer_standing(now), now)
    return {pk for pk in sessions if agents.get(pk) is None or agents[pk] in unvouched}
