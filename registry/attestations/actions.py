"""Every write to attestations: issue, upload, renew, revoke, verify again, enter expiry.

See docs/design/trust.md#attestations. An attestation beyond its issuer's limits is refused. It is
never reduced to the limits.
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
from atp.wire.member_paths import below
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
JTI_MAX_CHARS = 64  # length of the column
STATUS_INDEX_TRIES = 64  # in a list three quarters full, all tries fail once in 10^8 times
VERIFY_CHUNK = 200  # rows that the periodic verification handles at a time


@dataclass(frozen=True, slots=True)
class _Vouched:
    """The statement of an attestation, signed here or elsewhere."""

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
    """Issue an attestation for an agent and its active key, signed with the issuer's key held here.

    `days` is its validity. Raises `AttestationLimit` if it exceeds the issuer's limits,
    `AttestationIssuer` or `AttestationRevoked` if the issuer's chain is not good, `KeyMissing` if
    the agent has no approved key or the hub does not hold the issuer's key, `MalformedDocument` if
    a capability or the level is malformed, and what `lock_agent` raises.
    """
    reason = check_reason(reason, required=False)
    with below("capabilities"):
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
    """Verify and store an attestation that an issuer has signed elsewhere.

    Raises `AttestationUnreadable` if the token can't be verified, its subject is not an agent of
    this hub, or its jti or status index is in use; `AttestationExpired` if it has expired;
    `AttestationIssuer` or `AttestationRevoked` if no active key of an issuer signed it or the
    issuer's chain is not good; `AttestationLimit` if it exceeds the issuer's limits; `KeyUnknown`
    if it vouches for a key that is not an active key of the agent.
    """
    token, now = token.strip(), time.time()
    try:
        kid = read_header(token).kid
    except ATPError as exc:
        raise AttestationUnreadable(exc.detail) from exc
    with registry_change(actor) as change:
        key = IssuerKey.objects.select_related("issuer").filter(pk=kid).first()
        # A retired key is refused too: only the signer says when it signed, so it could backdate.
        if key is None or key.status != IssuerKey.Status.ACTIVE:
            raise AttestationIssuer("the key that signed it is not an active key of any issuer")
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
    """Issue a new attestation with the same level, capabilities and length, from now on.

    The old one stays valid until it expires. Raises `AttestationMissing` if there is no such
    attestation, `AttestationRevoked` if it is revoked, and what `issue_attestation` raises.
    """
    reason = check_reason(reason, required=False)
    old = Attestation.objects.select_related("issuer").filter(pk=jti).first()
    if old is None:
        raise AttestationMissing("there is no such attestation")
    if old.revoked_at is not None:
        raise AttestationRevoked("a revoked attestation can't be renewed; issue another one")
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
    """Revoke an attestation at once; this is final.

    Raises `AttestationMissing` if there is no such attestation and `AttestationRevoked` if it is
    revoked already.
    """
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
    """Verify the next `VERIFY_CHUNK` attestations whose jti is greater than `after`.

    Return the jti to continue after; `None` when there are no more. `now` in seconds since 1970.

    A row that differs from its signed token, or exceeds its issuer's present limits, stops
    counting, and the row says why. A row that is good again counts again. Each such change gets an
    entry.
    """
    rows = Attestation.objects.filter(
        jti__gt=after, revoked_at=None, expires_at__gt=datetime.fromtimestamp(now, UTC)
    ).select_related("issuer", "agent__organisation")
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


def exceeds(row: Attestation, issuer: Issuer) -> bool:
    """Return whether a stored attestation is beyond these limits of its issuer, saved or not."""
    says = _Vouched(row.level, tuple(row.capabilities), row.jkt, row.issued_at, row.expires_at)
    try:
        _check_own_limits(says, issuer)
    except ATPError:
        return True
    return False


def enter_expired(now: float) -> int:
    """Enter in the trail which attestations have expired, each once; return how many.

    One call enters at most `VERIFY_CHUNK`; `now` in seconds since 1970. No decision depends on
    these entries: every use of an attestation compares its dates.
    """
    at = datetime.fromtimestamp(now, UTC)
    rows = Attestation.objects.filter(expires_at__lte=at, revoked_at=None, expiry_entered_at=None)
    rows = rows.select_related("issuer", "agent__organisation")
    chunk = list(rows.order_by("expires_at", "jti")[:VERIFY_CHUNK])
    for row in chunk:
        with registry_change(Actor.hub(), moves_epoch=False) as change:  # this task may run twice
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
    """Return what is wrong with a stored attestation, '' if nothing is; the chain is not checked.

    `issuer_standings` checks the issuer's chain at each use.
    """
    if key is None or key.issuer_id != row.issuer_id:
        return "its issuer has no such key"
    if key.status == IssuerKey.Status.REVOKED:
        return REVOKED_KEY_FAULT
    try:
        public = PublicKey.from_jwk(key.public_jwk, alg=key.algorithm)
        verified = verify_attestation(row.token, public, now=now)
        if not _agree(row, verified):
            raise AttestationUnreadable("the row differs from the signed token")
        _check_own_limits(_vouched(verified), row.issuer)
    except AttestationExpired:
        return ""  # it expired after the rows were read
    except ATPError as exc:
        return str(exc)[:REASON_MAX_CHARS]
    return ""


def _agree(row: Attestation, verified: VerifiedAttestation) -> bool:
    """Return whether the columns are equal to the signed claims.

    Only the ends of the URLs are compared, because a hub can move to another host name.
    """
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
        raise MalformedDocument(f"{excerpt(says.level)} is not a trust level")
    if TrustLevel(says.level).rank > TrustLevel(issuer.highest_level).rank:
        raise AttestationLimit(f"{issuer.name} may attest up to {issuer.highest_level}")
    beyond = uncovered(issuer.capability_patterns, says.capabilities)
    if beyond:
        raise AttestationLimit(f"{issuer.name} may not vouch for {', '.join(beyond[:3])}")
    if says.expires_at <= says.issued_at:
        raise AttestationLimit("an attestation must be valid for at least one day")
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
        raise KeyMissing(f"{agent.id} has no approved key; the agent must enrol one first")
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
    """Return a random free index in the issuer's status list.

    Indexes are random, so an index does not tell which agent it belongs to.
    """
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
        raise AttestationUnreadable(f"its subject is not an agent of this hub ({prefix}...)")
    agent = lock_agent(verified.subject.removeprefix(prefix))
    if not AgentKey.objects.usable().filter(agent=agent, kid=verified.jkt).exists():
        raise KeyUnknown(f"the key that it vouches for is not an active key of {agent.id}")
    return agent


def _check_new(verified: VerifiedAttestation, issuer: Issuer) -> None:
    if len(verified.jti) > JTI_MAX_CHARS:
        raise AttestationUnreadable(f"its jti has more than {JTI_MAX_CHARS} characters")
    if Attestation.objects.filter(pk=verified.jti).exists():
        raise AttestationUnreadable("an attestation with this jti is registered already")
    if issuer.attestations.filter(status_index=verified.status.index).exists():
        raise AttestationUnreadable("another attestation has the same index in the status list")


def _enter(change: Change, kind: Kind, row: Attestation, **body: Any) -> None:
    """Add the entries about `row` and about the score that it changes; the last step of an action.

    `restate` is last because it reads the rows that the action has written.
    """
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
        kind=kind,
        actor=change.actor.name,
        subject=row.agent_id,
        issuer=row.issuer.slug,
        attestation=row.jti,
        organisations=(row.agent.organisation.uid,),
        shared=said,
    )
    change.enter(about, *restate([row.agent_id], kind))
