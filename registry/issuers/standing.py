"""Whether an issuer may vouch now: its whole chain is checked, up to an active trust anchor.

See docs/design/trust.md#issuers. Each use computes it from all issuers, in one query. So
suspending an issuer affects all issuers below it, and no other row has to change.
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
    """The result of a chain check: `code` is '' if the chain is good, else an error code.

    `detail` names the issuer that breaks the chain, and how.
    """

    code: str = ""
    detail: str = ""


GOOD = Standing()


def issuer_standing(now: float) -> dict[int, str]:
    """Return by issuer id the error code of its chain at `now` (seconds since 1970), '' if good."""
    return {issuer: standing.code for issuer, standing in issuer_standings(now).items()}


def issuer_standings(now: float) -> dict[int, Standing]:
    """Return by issuer id its `Standing` at `now` (seconds since 1970); one query."""
    return standings(Issuer.objects.all(), now)


def standings(issuers: Iterable[Issuer], now: float) -> dict[int, Standing]:
    """Return by issuer id the standing of these issuers at `now` (seconds since 1970).

    `issuers` must hold their parents too: a chain with a parent that is missing here is refused.
    """
    by_id = {issuer.pk: issuer for issuer in issuers}
    at = datetime.fromtimestamp(now, UTC)
    return {pk: _chain(issuer, by_id, at) for pk, issuer in by_id.items()}


def narrowing_fault(child: Issuer, parent: Issuer) -> str:
    """Return in words what `child` may do and its parent may not; '' if there is no such thing."""
    if TrustLevel(child.highest_level).rank > TrustLevel(parent.highest_level).rank:
        return (
            f"may attest up to {child.highest_level}, its parent only up to {parent.highest_level}"
        )
    if child.longest_validity_days > parent.longest_validity_days:
        return (
            f"may attest for {child.longest_validity_days} days,"
            f" its parent only for {parent.longest_validity_days}"
        )
    if not contained(child.capability_patterns, parent.capability_patterns):
        return "may vouch for capabilities that its parent may not vouch for"
    return ""


def _chain(issuer: Issuer, by_id: Mapping[int, Issuer], at: datetime) -> Standing:
    seen: set[int] = set()
    link: Issuer | None = issuer
    while link is not None:
        if link.pk in seen:
            return Standing(AttestationIssuer.code, f"{link.name} is its own parent in the chain")
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
