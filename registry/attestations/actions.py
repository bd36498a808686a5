"""Every write of attestations: issued here, uploaded, verified again, renewed, revoked.

docs/design/trust.md#attestations. Over the issuer's limits: refused, not capped.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings

from atp.errors import (
    ATPError,
    AttestationExpired,
    AttestationIssuer,
    AttestationLimit,
    AttestationMissing,
    AttestationRevoked,
    AttestationUnreadable,
    KeyMissing,
    KeyUnknown,
    MalformedDocument,
    excerpt,
    from_code,
)
from atp.trust.attestations import (
    StatusReference,
    VerifiedAttestation,
    trust_mark_type,
    uncovered,
    verify_attestation,
)
from atp.trust.attestations import issue_attestation as sign_attestation
from atp.trust.keys import PublicKey
from atp.trust.signing import read_header
from atp.types import TrustLevel
from registry.agents.actions.life import check_capabilities, lock_agent
from registry.agents.models import Agent, AgentKey
from registry.attestations.models import Attestation
from registry.attestations.status_list import STATUS_INDICES
from registry.change import Change, registry_change
from registry.issuers.actions import REVOKED_KEY_FAULT, signing_key
from registry.issuers.models import Issuer, IssuerKey
from registry.issuers.querysets import agent_url, issuer_url, status_list_url
from registry.issuers.standing import issuer_standings
from registry.officers.actor import Actor
from registry.officers.reason import REASON_MAX_CHARS, check_reason
from registry.scores.actions import restate
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

logger = logging.getLogger(__name__)

JTI_BYTES = 16
JTI_MAX_CHARS = 64  # of the column
STATUS_INDEX_TRIES = 64  # of a list three quarters full, all of them fail once in 10^8 times
VERIFY_CHUNK = 200  # rows of one transaction of the periodic verification


@dataclass(frozen=True, slots=True)
class _Vouched:
    """What an attestation says, whoever signed it."""

    level: str
    capabilities: tuple[str, ...]
    jkt: str
    issued_at: datetime
    expires_at: datetime


def issue_attestation(
    agent_id: str,
    issuer: Issuer,
    *,
    level: str,
    capabilities: Iterable[str],
    days: int,
    actor: Actor,
    reason: str = "",
    evidence: Mapping[str, Any] | None = None,
) -> Attestation:
    """Vouch for an agent and its active key, by the issuer's key that the hub holds.

    Raises `AttestationLimit` over the issuer's limits, `AttestationIssuer` or `AttestationRevoked`
    where its chain does not hold, `KeyMissing` where the agent or the issuer has no key to use.
    """
    names = tuple(check_capabilities(capabilities))
    with registry_change(actor) as change:
        agent = lock_agent(agent_id)
        issued_at = datetime.fromtimestamp(int(time.time()), UTC)
        says = _Vouched(
            level, names, _active_kid(agent), issued_at, issued_at + timedelta(days=days)
        )
        _check_limits(says, issuer)
        row = _sign(agent, issuer, says, evidence)
        row.save(force_insert=True)
        _enter(change, Kind.ATTESTATION_ISSUED, row, reason=reason)
    return row


def upload_attestation(token: str, *, actor: Actor) -> Attestation:
    """Take in what an issuer has signed elsewhere, if its key, subject and limits hold.

    Raises `AttestationUnreadable`, `AttestationExpired`, `AttestationIssuer`, `AttestationLimit`.
    """
    token, now = token.strip(), time.time()
    try:
        kid = read_header(token).kid
    except ATPError as exc:
        raise AttestationUnreadable(exc.detail) from exc
    with registry_change(actor) as change:
        key = IssuerKey.objects.select_related("issuer").filter(pk=kid).first()
        if key is None or key.status != IssuerKey.Status.ACTIVE:  # its dates are the signer's word
            raise AttestationIssuer("no issuer signs with the key that signed it, or no longer")
        public = PublicKey.from_jwk(key.public_jwk, alg=key.algorithm)
        verified = verify_attestation(token, public, now=now, issuer=issuer_url(key.issuer.slug))
        agent = _subject(verified)
        says = _vouched(verified)
        _check_limits(says, key.issuer)
        _check_new(verified, key.issuer)
        row = _row(agent, key.issuer, kid, says, jti=verified.jti, index=verified.status.index)
        row.token = token
        row.save(force_insert=True)
        _enter(change, Kind.ATTESTATION_ISSUED, row, uploaded=True)
    return row


def renew_attestation(jti: str, *, actor: Actor, reason: str = "") -> Attestation:
    """Vouch again for the same, as long again, from now on; the older one runs out by itself."""
    old = Attestation.objects.select_related("issuer").filter(pk=jti).first()
    if old is None:
        raise AttestationMissing("there is no such attestation")
    if old.revoked_at is not None:
        raise AttestationRevoked("a revoked attestation is not renewed; issue another one")
    with registry_change(actor) as change:
        agent = lock_agent(old.agent_id)
        issued_at = datetime.fromtimestamp(int(time.time()), UTC)
        says = _Vouched(
            old.level,
            tuple(old.capabilities),
            _active_kid(agent),
            issued_at,
            issued_at + (old.expires_at - old.issued_at),
        )
        _check_limits(says, old.issuer)
        row = _sign(agent, old.issuer, says, None)
        row.save(force_insert=True)
        _enter(change, Kind.ATTESTATION_RENEWED, row, renews=old.jti, reason=reason)
    return row


def revoke_attestation(jti: str, *, actor: Actor, reason: str) -> Attestation:
    """Take back what was vouched for, at once."""
    reason = check_reason(reason)
    with registry_change(actor) as change:
        row = Attestation.objects.select_for_update(no_key=True).filter(pk=jti).first()
        if row is None:
            raise AttestationMissing("there is no such attestation")
        if row.revoked_at is not None:
            raise AttestationRevoked("this attestation has been revoked already")
        row.revoked_at, row.revoked_reason = datetime.now(UTC), reason
        row.save(update_fields=["revoked_at", "revoked_reason"])
        _enter(change, Kind.ATTESTATION_REVOKED, row, reason=reason)
    return row


def verify_stored(now: float, *, after: str = "", issuer_id: int | None = None) -> str | None:
    """Verify the next chunk behind jti `after`; the jti to go on from, `None` at the end.

    A row that says something else than its token, or is over its issuer's limits of today, counts
    no longer and says why; one that holds again counts again. Each change is an entry.
    """
    rows = Attestation.objects.filter(
        jti__gt=after, revoked_at=None, expires_at__gt=datetime.fromtimestamp(now, UTC)
    ).select_related("issuer")
    if issuer_id is not None:
        rows = rows.filter(issuer=issuer_id)
    chunk = list(rows.order_by("jti")[:VERIFY_CHUNK])
    if not chunk:
        return None
    keys = {key.kid: key for key in IssuerKey.objects.filter(kid__in={r.kid for r in chunk})}
    faults = {row.jti: _fault(row, keys.get(row.kid), now) for row in chunk}
    changed = [row for row in chunk if faults[row.jti] != row.unreadable_reason]
    sound = [row.jti for row in chunk if not faults[row.jti]]
    at = datetime.fromtimestamp(now, UTC)
    with registry_change(Actor.hub(), moves_epoch=False):
        Attestation.objects.filter(jti__in=sound).update(verified_at=at)
    for row in changed:
        _note_fault(row, faults[row.jti])
    return chunk[-1].jti


def enter_expired(now: float) -> int:
    """Enter that attestations have run out, each once; how many, at most a chunk of them.

    Nothing follows from the entry: dates are compared wherever an attestation counts.
    """
    at = datetime.fromtimestamp(now, UTC)
    rows = Attestation.objects.filter(expires_at__lte=at, revoked_at=None, expiry_entered_at=None)
    chunk = list(rows.select_related("issuer").order_by("expires_at", "jti")[:VERIFY_CHUNK])
    for row in chunk:
        with registry_change(Actor.hub(), moves_epoch=False) as change:  # two beats may run
            fresh = Attestation.objects.filter(pk=row.pk, expiry_entered_at=None)
            if fresh.update(expiry_entered_at=at):
                _enter(change, Kind.ATTESTATION_EXPIRED, row)
    return len(chunk)


def _note_fault(row: Attestation, fault: str) -> None:
    if fault:
        logger.error("attestation %s does not hold: %s", row.jti, fault)
    with registry_change(Actor.hub()) as change:
        if Attestation.objects.filter(pk=row.pk).update(unreadable_reason=fault):
            row.unreadable_reason = fault
            _enter(change, Kind.ATTESTATION_VERIFIED, row, fault=fault)


def _fault(row: Attestation, key: IssuerKey | None, now: float) -> str:
    """Why a stored attestation does not hold, '' where it does; its chain is judged elsewhere."""
    if key is None or key.issuer_id != row.issuer_id:
        return "its issuer has no such key"
    if key.status == IssuerKey.Status.REVOKED:
        return REVOKED_KEY_FAULT
    try:
        public = PublicKey.from_jwk(key.public_jwk, alg=key.algorithm)
        verified = verify_attestation(row.token, public, now=now)
        if not _agree(row, verified):
            raise AttestationUnreadable("the row says something else than the signed token")
        _check_own_limits(_vouched(verified), row.issuer)
    except AttestationExpired:
        return ""  # ran out since the rows were read
    except ATPError as exc:
        return str(exc)[:REASON_MAX_CHARS]
    return ""


def _agree(row: Attestation, verified: VerifiedAttestation) -> bool:
    """Whether the columns are what was signed. Hosts may differ: a hub can move to another URL."""
    return (
        verified.jti == row.jti
        and verified.issuer.endswith(f"/issuers/{row.issuer.slug}")
        and verified.subject.endswith(f"/agents/{row.agent_id}")
        and verified.level == row.level
        and verified.capabilities == set(row.capabilities)
        and verified.jkt == row.jkt
        and verified.issued_at == row.issued_at.timestamp()
        and verified.expires_at == row.expires_at.timestamp()
        and verified.status.index == row.status_index
    )


def _check_limits(says: _Vouched, issuer: Issuer) -> None:
    standing = issuer_standings(time.time()).get(issuer.pk)
    if standing is None:
        raise AttestationIssuer("the issuer is not known here")
    if standing.code:
        raise from_code(standing.code, standing.detail)
    _check_own_limits(says, Issuer.objects.get(pk=issuer.pk))


def _check_own_limits(says: _Vouched, issuer: Issuer) -> None:
    if says.level not in {level.value for level in TrustLevel}:
        raise MalformedDocument(f"{excerpt(says.level)} is no trust level")
    if TrustLevel(says.level).rank > TrustLevel(issuer.highest_level).rank:
        raise AttestationLimit(f"{issuer.name} may attest up to {issuer.highest_level}")
    beyond = uncovered(issuer.capability_patterns, says.capabilities)
    if beyond:
        raise AttestationLimit(f"{issuer.name} may not vouch for {', '.join(beyond[:3])}")
    if says.expires_at <= says.issued_at:
        raise AttestationLimit("an attestation is good for at least a day")
    if says.expires_at - says.issued_at > timedelta(days=issuer.longest_validity_days):
        raise AttestationLimit(
            f"{issuer.name} may attest for {issuer.longest_validity_days} days at most"
        )
    if issuer.not_after is not None and says.expires_at > issuer.not_after:
        raise AttestationLimit(
            f"{issuer.name} itself is accredited until {issuer.not_after:%Y-%m-%d}"
        )


def _active_kid(agent: Agent) -> str:
    key = AgentKey.objects.usable().filter(agent=agent).order_by("-approved_at").first()
    if key is None:
        raise KeyMissing(f"{agent.id} has no approved key; let it enrol one first")
    return key.kid


def _sign(
    agent: Agent, issuer: Issuer, says: _Vouched, evidence: Mapping[str, Any] | None
) -> Attestation:
    key = signing_key(issuer)
    jti, index = secrets.token_urlsafe(JTI_BYTES), _free_index(issuer)
    row = _row(agent, issuer, key.kid, says, jti=jti, index=index)
    row.token = sign_attestation(
        issuer=issuer_url(issuer.slug),
        subject=agent_url(agent.id),
        mark_type=trust_mark_type(settings.ATP_PUBLIC_URL, TrustLevel(says.level)),
        level=TrustLevel(says.level),
        capabilities=says.capabilities,
        jkt=says.jkt,
        jti=jti,
        status=StatusReference(uri=status_list_url(issuer.slug), index=index),
        expires_at=int(says.expires_at.timestamp()),
        issuer_key=key,
        now=int(says.issued_at.timestamp()),
        evidence=evidence,
    )
    return row


def _row(
    agent: Agent, issuer: Issuer, kid: str, says: _Vouched, *, jti: str, index: int
) -> Attestation:
    return Attestation(
        jti=jti,
        issuer=issuer,
        agent=agent,
        kid=kid,
        level=says.level,
        capabilities=sorted(says.capabilities),
        jkt=says.jkt,
        issued_at=says.issued_at,
        expires_at=says.expires_at,
        status_index=index,
        verified_at=datetime.now(UTC),
    )


def _free_index(issuer: Issuer) -> int:
    """A random place in the issuer's status list, so that places tell nothing of whose they are."""
    for _ in range(STATUS_INDEX_TRIES):
        index = secrets.randbelow(STATUS_INDICES)
        if not issuer.attestations.filter(status_index=index).exists():
            return index
    raise AttestationLimit(f"the status list of {issuer.name} is full; create another issuer")


def _vouched(verified: VerifiedAttestation) -> _Vouched:
    return _Vouched(
        level=verified.level.value,
        capabilities=tuple(sorted(verified.capabilities)),
        jkt=verified.jkt,
        issued_at=datetime.fromtimestamp(verified.issued_at, UTC),
        expires_at=datetime.fromtimestamp(verified.expires_at, UTC),
    )


def _subject(verified: VerifiedAttestation) -> Agent:
    prefix = agent_url("")
    if not verified.subject.startswith(prefix):
        raise AttestationUnreadable(f"its subject is no agent of this hub ({prefix}...)")
    agent = lock_agent(verified.subject.removeprefix(prefix))
    if not AgentKey.objects.usable().filter(agent=agent, kid=verified.jkt).exists():
        raise KeyUnknown(f"the key that it vouches for is no active key of {agent.id}")
    return agent


def _check_new(verified: VerifiedAttestation, issuer: Issuer) -> None:
    if len(verified.jti) > JTI_MAX_CHARS:
        raise AttestationUnreadable(f"its jti has more than {JTI_MAX_CHARS} characters")
    if Attestation.objects.filter(pk=verified.jti).exists():
        raise AttestationUnreadable("an attestation of this jti is here already")
    if issuer.attestations.filter(status_index=verified.status.index).exists():
        raise AttestationUnreadable("another attestation has its place in the status list")


def _enter(change: Change, kind: Kind, row: Attestation, **body: Any) -> None:
    """Enter what happened to `row`, and the score that it moved; the last step of an action."""
    said = {
        "jti": row.jti,
        "level": row.level,
        "capabilities": row.capabilities,
        "jkt": row.jkt,
        "kid": row.kid,
        "issuedAt": int(row.issued_at.timestamp()),
        "expiresAt": int(row.expires_at.timestamp()),
        **body,
    }
    about = EntryDraft(
        kind=kind, actor=change.actor.name, subject=row.agent_id, issuer=row.issuer.name, body=said
    )
    change.enter(about, *restate([row.agent_id], kind))
