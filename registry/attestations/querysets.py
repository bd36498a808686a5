"""Reads of attestations, and what each is worth now."""

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
    def about(self, agents: Collection[str]) -> AttestationQuerySet:
        return self.filter(agent_id__in=agents)

    def in_date_at(self, now: datetime) -> AttestationQuerySet:
        """Neither revoked nor expired; whether the issuer's chain holds is another question."""
        return self.filter(revoked_at=None, expires_at__gt=now)


@dataclass(frozen=True, slots=True)
class State:
    """What an attestation is worth: `name` is one of a closed list, `detail` says why."""

    name: str  # valid, expired, revoked, unreadable, issuer
    detail: str = ""


def attestations() -> AttestationQuerySet:
    """All attestations."""
    return AttestationQuerySet(Attestation)


def states(rows: Iterable[Attestation], now: float) -> dict[str, State]:
    """By jti, what each is worth at `now`, computed through its issuer's chain; one query."""
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
    """Those of these agents whose every voucher has been suspended or revoked, or one above it.

    That is more than not being attested: who vouched for them is not to be trusted, so they may
    not be connected (docs/design/trust.md#revocation). `standing` is each issuer's, by
    `issuer_standing`.
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
