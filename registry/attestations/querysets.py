"""Reads of attestations, and their present state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import models

from atp.errors import AttestationRevoked
from registry.attestations.models import Attestation
from registry.issuers.standing import issuer_standings


class AttestationQuerySet(models.QuerySet[Attestation]):
    """Filters for attestations."""

    def about(self, agents: Collection[str]) -> AttestationQuerySet:
        """Return attestations that vouch for any of these agent ids."""
        return self.filter(agent_id__in=agents)

    def in_date_at(self, now: datetime) -> AttestationQuerySet:
        """Return attestations that are neither revoked nor expired at `now`.

        The issuer's chain is not checked: `states` does that.
        """
        return self.filter(revoked_at=None, expires_at__gt=now)


@dataclass(frozen=True, slots=True)
class State:
    """The state of an attestation, and in `detail` the reason in words.

    `name` is `valid`, `expired`, `revoked`, `unreadable` (it could not be verified) or `issuer`
    (its issuer's chain is not good).
    """

    name: str
    detail: str = ""


def attestations() -> AttestationQuerySet:
    """Return all attestations."""
    return AttestationQuerySet(Attestation)


def states(rows: Iterable[Attestation], now: float) -> dict[str, State]:
    """Return by jti the state of each attestation at `now` (seconds since 1970); one query."""
    standings = issuer_standings(now)
    at = datetime.fromtimestamp(now, UTC)
    found = {}
    for row in rows:
        standing = standings.get(row.issuer_id)
        if row.revoked_at is not None:
            state = State("revoked", row.revoked_reason)
        elif row.unreadable_reason:
            state = State("unreadable", row.unreadable_reason)
        elif row.expires_at <= at:
            state = State("expired")
        elif standing is None or standing.code:
            state = State("issuer", standing.detail if standing else "its issuer is unknown")
        else:
            state = State("valid")
        found[row.jti] = state
    return found


def left_without_voucher(
    agents: Collection[str], standing: Mapping[int, str], now: float
) -> set[str]:
    """Return the agents of which every issuer is suspended or revoked, itself or above it.

    Such an agent may not be connected (docs/design/trust.md#revocation). An agent without any
    attestation is not among them. `standing` is the result of `issuer_standing`; `now` is in
    seconds since 1970.
    """
    ended = {issuer for issuer, code in standing.items() if code == AttestationRevoked.code}
    if not ended or not agents:
        return set()
    at = datetime.fromtimestamp(now, UTC)
    vouchers: dict[str, set[int]] = defaultdict(set)
    rows = attestations().about(agents).in_date_at(at).filter(unreadable_reason="").order_by()
    for agent, issuer in rows.values_list("agent_id", "issuer_id"):
        vouchers[agent].add(issuer)
    return {agent for agent, issuers in vouchers.items() if issuers <= ended}
