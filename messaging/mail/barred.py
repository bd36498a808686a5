"""Senders and keys whose mail is not delivered, because officers suspended or revoked them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from atp.errors import IdentityNotActive, IdentityRevoked, KeyRevoked
from messaging.models import Delivery
from registry.models import Agent, AgentKey


@dataclass(frozen=True, slots=True)
class Barred:
    """Agents that are revoked, agents that are suspended for now, and revoked keys."""

    revoked: Collection[str]
    inactive: Collection[str]
    kids: Collection[str]

    def code(self, row: Delivery) -> str:
        """Return why a delivery may not be delivered now, or "". `row.envelope` must be loaded."""
        if row.sender in self.revoked:
            return IdentityRevoked.code
        if row.envelope.kid in self.kids:
            return KeyRevoked.code
        return IdentityNotActive.code if row.sender in self.inactive else ""


def barred_among(rows: Sequence[Delivery]) -> Barred:
    """Find the senders and keys of these deliveries that are barred now."""
    inactive = dict(
        Agent.objects.filter(id__in={row.sender for row in rows})
        .exclude(status=Agent.Status.ACTIVE)
        .values_list("id", "status")
    )
    revoked = {agent for agent, status in inactive.items() if status == Agent.Status.REVOKED}
    kids = {row.envelope.kid for row in rows if row.sender not in revoked}
    keys = AgentKey.objects.filter(kid__in=kids, status=AgentKey.Status.REVOKED)
    return Barred(revoked, inactive.keys() - revoked, set(keys.values_list("kid", flat=True)))
