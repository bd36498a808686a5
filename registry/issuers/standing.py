"""Whether an issuer may vouch now: its whole chain, link by link, up to an active anchor.

docs/design/trust.md#issuers. Computed from all issuers in one query at each use, so that
suspending one takes effect on everything below it without touching another row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from atp.errors import AttestationIssuer, AttestationRevoked
from atp.trust.capabilities import contained
from atp.types import TrustLevel
from registry.issuers.models import Issuer


@dataclass(frozen=True, slots=True)
class Standing:
    """`code` is '' where the chain is good; `detail` says which link breaks it, and how."""

    code: str = ""
    detail: str = ""


GOOD = Standing()


def issuer_standing(now: float) -> dict[int, str]:
    """For each issuer the code of what is wrong with its chain at `now`, '' where nothing is."""
    return {issuer: standing.code for issuer, standing in issuer_standings(now).items()}


def issuer_standings(now: float) -> dict[int, Standing]:
    """For each issuer how its chain stands at `now` (seconds since 1970); one query."""
    return standings(Issuer.objects.all(), now)


def standings(issuers: Iterable[Issuer], now: float) -> dict[int, Standing]:
    """How these issuers stand, among each other; a parent that is not among them is unknown."""
    by_id = {issuer.pk: issuer for issuer in issuers}
    at = datetime.fromtimestamp(now, UTC)
    return {pk: _chain(issuer, by_id, at) for pk, issuer in by_id.items()}


def narrowing_fault(child: Issuer, parent: Issuer) -> str:
    """What `child` may do that its parent may not, in words; '' where it only narrows."""
    if TrustLevel(child.highest_level).rank > TrustLevel(parent.highest_level).rank:
        return f"may attest up to {child.highest_level}, its parent {parent.highest_level}"
    if child.longest_validity_days > parent.longest_validity_days:
        return (
            f"may attest for {child.longest_validity_days} days,"
            f" its parent for {parent.longest_validity_days}"
        )
    if not contained(child.capability_patterns, parent.capability_patterns):
        return "may vouch for capabilities that its parent may not vouch for"
    return ""


def _chain(issuer: Issuer, by_id: Mapping[int, Issuer], at: datetime) -> Standing:
    seen: set[int] = set()
    link: Issuer | None = issuer
    while link is not None:
        if link.pk in seen:
            return Standing(AttestationIssuer.code, f"{link.name} stands above itself")
        seen.add(link.pk)
        fault = _own_fault(link, at)
        if fault.code or link.parent_id is None:
            return fault
        parent = by_id.get(link.parent_id)
        if parent is None:
            return Standing(AttestationIssuer.code, f"the issuer above {link.name} is unknown")
        if widened := narrowing_fault(link, parent):
            return Standing(AttestationIssuer.code, f"{link.name} {widened}")
        link = parent
    return GOOD


def _own_fault(link: Issuer, at: datetime) -> Standing:
    if link.status != Issuer.Status.ACTIVE:
        return Standing(AttestationRevoked.code, f"{link.name} is {link.status}")
    if link.not_before is not None and at < link.not_before:
        return Standing(AttestationIssuer.code, f"{link.name} is not accredited yet")
    if link.not_after is not None and at >= link.not_after:
        return Standing(AttestationIssuer.code, f"the accreditation of {link.name} has expired")
    return GOOD
