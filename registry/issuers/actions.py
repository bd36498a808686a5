"""Every write to issuers and their keys.

See docs/design/trust.md#issuers. An issuer may never do more than its parent. Suspending or
revoking an issuer affects all issuers below it, because every use checks the whole chain. So only
the row of that one issuer changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from atp.errors import (
    AttestationIssuer,
    AttestationLimit,
    KeyMissing,
    KeyRevoked,
    KeyUnknown,
    MalformedDocument,
    excerpt,
)
from atp.trust.capabilities import check_pattern
from atp.trust.keys import PrivateKey, PublicKey
from atp.wire.member_paths import below
from registry.change import registry_change
from registry.hub import keyring
from registry.issuers.events import enqueue_verification_on_commit
from registry.issuers.models import Issuer, IssuerKey
from registry.issuers.querysets import signing_key_row
from registry.issuers.standing import narrowing_fault
from registry.officers.actor import Actor
from registry.officers.reason import check_reason
from registry.plain_text import check_text
from registry.scores.events import enqueue_refresh_on_commit
from registry.storage.row_fields import check_fields
from registry.thumbprints import check_unused
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")  # part of URLs
PATTERNS_MAX = 256
REVOKED_KEY_FAULT = "the issuer's key that signed it has been revoked"
VALIDITY_MAX_DAYS = 3660  # ten years; then the issuer has to check the agent again


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an issuer: what it may attest, for how many days, and in which period.

    An empty tuple of patterns covers no capability.
    """

    highest_level: str = "certified"
    capability_patterns: tuple[str, ...] = ()
    longest_validity_days: int = 365
    not_before: datetime | None = None
    not_after: datetime | None = None


def create_issuer(
    slug: str,
    limits: Limits,
    *,
    name: str,
    actor: Actor,
    parent: Issuer | None = None,
    public_jwk: Mapping[str, Any] | None = None,
) -> Issuer:
    """Create an issuer: a trust anchor, or accredited by `parent`.

    Without `public_jwk` the hub makes a key for it and keeps the private key, sealed. With
    `public_jwk` the issuer signs elsewhere.

    Raises `AttestationLimit` if it may do more than its parent, `AttestationIssuer` if the parent
    is not active, `MalformedDocument` if a field is invalid or the slug taken, `KeyInUse` if the
    key is registered already, and what `PublicKey.from_jwk` raises.
    """
    row = Issuer(slug=_check_slug(slug), name=check_text(name, "name"), parent=parent)
    private = PrivateKey.generate() if public_jwk is None else None
    public = private.public if private is not None else PublicKey.from_jwk(public_jwk or {})
    with registry_change(actor) as change:
        if Issuer.objects.filter(slug=slug).exists():
            raise MalformedDocument(f"there is an issuer '{slug}' already", field="slug")
        _set_limits(row, limits)
        _check_alive(parent)
        check_unused(public.kid)
        row.save(force_insert=True)
        _add_key_row(row, public, private)
        body = {"after": described(row), "kid": public.kid, "heldHere": private is not None}
        change.enter(_draft(Kind.ISSUER_CREATED, row, actor, **body))
    return row


def change_issuer(issuer_id: int, limits: Limits, *, actor: Actor, reason: str) -> Issuer:
    """Replace the limits of an issuer.

    Issuers below it that may now do more than it stop counting at once. A task verifies its own
    attestations again right after the commit; those beyond the new limits then stop counting.

    Raises `AttestationLimit` if it would be allowed more than its parent, `MalformedDocument` if
    a limit is invalid, and `AttestationIssuer` if there is no such issuer or it is revoked.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        row = _lock(issuer_id)
        before = described(row)
        _set_limits(row, limits)
        after = described(row)
        if after == before:
            return row
        row.save()
        enqueue_verification_on_commit(row.pk)
        enqueue_refresh_on_commit(Kind.ISSUER_CHANGED)
        change.enter(
            _draft(Kind.ISSUER_CHANGED, row, actor, before=before, after=after, reason=reason)
        )
    return row


def add_issuer_key(
    issuer_id: int,
    *,
    actor: Actor,
    reason: str,
    public_jwk: Mapping[str, Any] | None = None,
) -> IssuerKey:
    """Give an issuer a new key; the key in use until now retires. What it has signed stays valid.

    Without `public_jwk` the hub makes the key. Raises `KeyInUse` if the key is registered already
    and `AttestationIssuer` if there is no such issuer or it is revoked.
    """
    reason = check_reason(reason)
    private = PrivateKey.generate() if public_jwk is None else None
    public = private.public if private is not None else PublicKey.from_jwk(public_jwk or {})
    with registry_change(actor) as change:
        row = _lock(issuer_id)
        check_unused(public.kid)
        now = datetime.now(UTC)
        active = row.keys.filter(status=IssuerKey.Status.ACTIVE)
        retired = list(active.values_list("kid", flat=True))
        active.update(status=IssuerKey.Status.RETIRED, ended_at=now)
        key = _add_key_row(row, public, private)
        body = {"kid": key.kid, "retired": retired, "reason": reason}
        change.enter(_draft(Kind.KEY_ADDED, row, actor, **body))
    return key


def revoke_issuer_key(kid: str, *, actor: Actor, reason: str) -> IssuerKey:
    """Revoke an issuer's key. All attestations signed with it stop counting at once.

    Raises `KeyUnknown` if no issuer has the key and `KeyRevoked` if it is revoked already.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        key = IssuerKey.objects.select_for_update(no_key=True).filter(pk=kid).first()
        if key is None:
            raise KeyUnknown(f"no issuer has a key {excerpt(kid)}")
        if key.status == IssuerKey.Status.REVOKED:
            raise KeyRevoked("this key has been revoked already")
        key.status, key.ended_at = IssuerKey.Status.REVOKED, datetime.now(UTC)
        key.save(update_fields=["status", "ended_at"])
        key.issuer.attestations.filter(kid=kid, unreadable_reason="").update(
            unreadable_reason=REVOKED_KEY_FAULT
        )
        enqueue_refresh_on_commit(Kind.KEY_REVOKED)
        change.enter(_draft(Kind.KEY_REVOKED, key.issuer, actor, kid=kid, reason=reason))
    return key


def suspend_issuer(issuer_id: int, *, actor: Actor, reason: str) -> Issuer:
    """Suspend an issuer: until it is resumed, no attestation by it or below it counts.

    Raises `AttestationIssuer` if there is no such issuer, or it is suspended or revoked already.
    """
    return _end(issuer_id, Issuer.Status.SUSPENDED, Kind.ISSUER_SUSPENDED, actor, reason)


def revoke_issuer(issuer_id: int, *, actor: Actor, reason: str) -> Issuer:
    """Revoke an issuer for good: no attestation by it or below it counts any more.

    Raises `AttestationIssuer` if there is no such issuer or it is revoked already.
    """
    return _end(issuer_id, Issuer.Status.REVOKED, Kind.ISSUER_REVOKED, actor, reason)


def resume_issuer(issuer_id: int, *, actor: Actor, reason: str) -> Issuer:
    """Resume a suspended issuer: its attestations count again.

    Raises `AttestationIssuer` if there is no such issuer or it is not suspended.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        row = _lock(issuer_id)
        if row.status != Issuer.Status.SUSPENDED:
            raise AttestationIssuer(f"this issuer is {row.status}, not suspended")
        row.status, row.status_reason, row.ended_at = Issuer.Status.ACTIVE, reason, None
        row.save(update_fields=["status", "status_reason", "ended_at"])
        enqueue_refresh_on_commit(Kind.ISSUER_RESTORED)
        change.enter(_draft(Kind.ISSUER_RESTORED, row, actor, reason=reason))
    return row


def signing_key(issuer: Issuer) -> PrivateKey:
    """Return the private key with which the hub signs for this issuer.

    Raises `KeyMissing` if the issuer signs elsewhere and `SealBroken` if the key does not open.
    """
    row = signing_key_row(issuer)
    if row is None or row.private_sealed is None:
        raise KeyMissing(f"{issuer.name} signs elsewhere; upload an attestation that it has signed")
    pem = keyring.unseal(row.private_sealed, associated=_owner(issuer.slug, row.kid))
    return PrivateKey.from_pem(pem, alg=row.algorithm)


def sealed_keys() -> Iterator[tuple[IssuerKey, bytes]]:
    """Yield every issuer's key that the hub holds, locked, with the bytes its seal is bound to."""
    rows = IssuerKey.objects.select_for_update(of=("self",)).select_related("issuer")
    for row in rows.filter(private_sealed__isnull=False).order_by("kid"):
        yield row, _owner(row.issuer.slug, row.kid)


def described(row: Issuer) -> dict[str, Any]:
    """Return the issuer and its limits as JSON, for the body of an entry."""
    return {
        "slug": row.slug,
        "name": row.name,
        "parent": row.parent.slug if row.parent else "",
        "highestLevel": row.highest_level,
        "capabilityPatterns": list(row.capability_patterns),
        "longestValidityDays": row.longest_validity_days,
        "notBefore": row.not_before.isoformat() if row.not_before else None,
        "notAfter": row.not_after.isoformat() if row.not_after else None,
    }


def check_patterns(patterns: Iterable[str]) -> list[str]:
    """Return the patterns sorted, without duplicates.

    Raises `MalformedDocument` if there are more than `PATTERNS_MAX` or one is malformed.
    """
    unique = sorted({check_pattern(pattern) for pattern in patterns})
    if len(unique) > PATTERNS_MAX:
        raise MalformedDocument(f"there may be at most {PATTERNS_MAX} patterns")
    return unique


def _end(issuer_id: int, status: str, kind: Kind, actor: Actor, reason: str) -> Issuer:
    reason = check_reason(reason)
    with registry_change(actor) as change:
        row = _lock(issuer_id)
        if row.status == status:
            raise AttestationIssuer(f"this issuer is {status} already")
        before = row.status
        row.status, row.status_reason, row.ended_at = status, reason, datetime.now(UTC)
        row.save(update_fields=["status", "status_reason", "ended_at"])
        enqueue_refresh_on_commit(kind)
        change.enter(_draft(kind, row, actor, before=before, reason=reason))
    return row


def _lock(issuer_id: int) -> Issuer:
    row = Issuer.objects.select_for_update(no_key=True).filter(pk=issuer_id).first()
    if row is None:
        raise AttestationIssuer("there is no such issuer")
    if row.status == Issuer.Status.REVOKED:
        raise AttestationIssuer("this issuer has been revoked, which is final; create another one")
    return row


def _set_limits(row: Issuer, limits: Limits) -> None:
    row.highest_level = limits.highest_level
    with below("capability_patterns"):
        row.capability_patterns = check_patterns(limits.capability_patterns)
    row.longest_validity_days = limits.longest_validity_days
    row.not_before, row.not_after = limits.not_before, limits.not_after
    if not 1 <= limits.longest_validity_days <= VALIDITY_MAX_DAYS:
        raise MalformedDocument(
            f"the longest validity must be between 1 and {VALIDITY_MAX_DAYS} days",
            field="longest_validity_days",
        )
    if row.not_before and row.not_after and row.not_after - row.not_before < timedelta(0):
        raise MalformedDocument(
            "'not after' must not be earlier than 'not before'", field="not_after"
        )
    check_fields(row, exclude=["parent"], unique=True)
    if row.parent is not None and (fault := narrowing_fault(row, row.parent)):
        raise AttestationLimit(f"{row.name} {fault}")


def _check_slug(slug: str) -> str:
    if SLUG.fullmatch(slug) is None:
        raise MalformedDocument(
            "the slug must be 1 to 60 lower-case letters, digits and hyphens", field="slug"
        )
    return slug


def _check_alive(parent: Issuer | None) -> None:
    if parent is not None and parent.status != Issuer.Status.ACTIVE:
        raise AttestationIssuer(f"{parent.name} is {parent.status}, so it can't accredit an issuer")


def _add_key_row(row: Issuer, public: PublicKey, private: PrivateKey | None) -> IssuerKey:
    sealed = None
    if private is not None:
        sealed = keyring.seal(private.to_pem(), associated=_owner(row.slug, public.kid))
    return IssuerKey.objects.create(
        kid=public.kid,
        issuer=row,
        algorithm=public.alg,
        public_jwk=public.jwk,
        private_sealed=sealed,
    )


def _owner(slug: str, kid: str) -> bytes:
    return f"issuer\0{slug}\0{kid}".encode()


def _draft(kind: Kind, row: Issuer, actor: Actor, **body: Any) -> EntryDraft:
    return EntryDraft(kind=kind, actor=actor.name, subject=row.slug, issuer=row.slug, shared=body)
