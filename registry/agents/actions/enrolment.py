"""Enrolment: issue a one-time token, and register the key that the agent sends with a proof.

See docs/design/trust.md#keys. The agent makes its key itself. The proof covers token hash, hub,
agent and thumbprint. So a proof enrols no other key, and no other hub accepts it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction

from atp.errors import (
    ATPError,
    IdentityEnrolment,
    IdentityRevoked,
    SignatureClaims,
    excerpt,
)
from atp.trust import tokens
from atp.trust.keys import PublicKey
from registry.agents.actions.life import draft, lock_agent
from registry.agents.models import Agent, AgentKey, EnrolmentToken
from registry.change import registry_change
from registry.hub.actions import hub_id
from registry.officers.actor import Actor
from registry.thumbprints import check_unused
from registry.token_hash import hash_token
from registry.trail.actions import count_refusals
from registry.trail.kinds import Kind

logger = logging.getLogger(__name__)

TOKEN_BYTES = 32  # docs/design/trust.md#keys: 256 bits
ENROLMENT_LIFE = timedelta(hours=24)  # docs/design/trust.md#keys


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new one-time token with its text in clear. The database stores only the hash of `text`."""

    agent: str
    expires_at: datetime
    text: str = field(repr=False)


def issue_enrolment_token(agent_id: str, *, actor: Actor) -> IssuedToken:
    """Issue a one-time token that is valid for 24 hours (`ENROLMENT_LIFE`).

    The agent's earlier open tokens expire at once. Raises `IdentityUnknown` if there is no such
    agent and `IdentityRevoked` if it is revoked.
    """
    text = secrets.token_urlsafe(TOKEN_BYTES)
    with registry_change(actor) as change:
        agent = lock_agent(agent_id)
        now = datetime.now(UTC)
        EnrolmentToken.objects.open_at(now).filter(agent=agent).update(expires_at=now)
        row = EnrolmentToken.objects.create(
            agent=agent,
            token_hash=hash_token(text),
            created_by_id=actor.user_id,
            expires_at=now + ENROLMENT_LIFE,
        )
        invited = draft(Kind.AGENT_INVITED, agent, actor, expiresAt=row.expires_at.isoformat())
        change.enter(invited)
    return IssuedToken(agent=agent.id, expires_at=row.expires_at, text=text)


def enrol_key(*, token: str, proof: str, jwk: Mapping[str, Any], now: float) -> AgentKey:
    """Register the agent's public key as pending and return its row; `now` in seconds since 1970.

    `proof` is an `atp-enrol+jwt` signed with that key. While the key is pending, the same request
    gets the same answer again, because the first answer may have been lost.

    Raises `IdentityEnrolment` if the token is unknown, expired, for another agent, or used by
    another key; the last also raises an alarm. Raises `IdentityRevoked` if the agent is revoked,
    `KeyInUse` if the key is registered already, `SignatureClaims` if the proof covers another
    token or key, and what `tokens.verify` and `PublicKey.from_jwk` raise.
    """
    hashed = hash_token(token)
    row = EnrolmentToken.objects.filter(token_hash=hashed).first()
    if row is None:
        raise IdentityEnrolment(
            "the hub does not know this enrolment token; check that it is complete, or ask an"
            " officer for another"
        )
    try:
        public = _prove(proof, jwk, agent=row.agent_id, hashed=hashed, now=now)
    except ATPError:
        if row.used_at is not None:
            _alarm(row)
        raise
    if row.used_at is not None:  # decided from the row read above: a repeat must not move the epoch
        key = _waiting_already(row, public)
    else:
        key = _register(row.pk, row.agent_id, public, now)
    if key is None:
        _alarm(row)
        raise IdentityEnrolment("the enrolment token has been used; ask an officer for another one")
    return key


def count_refused_enrolment(code: str) -> None:
    """Count a refused enrolment under error code `code`; the trail gets the sums each minute.

    The count names no agent, because a refused caller has proved no identity.
    """
    with transaction.atomic():
        count_refusals({("", code): 1}, datetime.now(UTC))


def _prove(proof: str, jwk: Mapping[str, Any], *, agent: str, hashed: str, now: float) -> PublicKey:
    public = PublicKey.from_jwk(jwk)
    claims = tokens.verify(
        tokens.TokenKind.ENROL, proof, public, now=now, audience=hub_id(), issuer=None
    )
    if claims["iss"] != agent:
        raise IdentityEnrolment(
            f"this enrolment token is not for {excerpt(claims['iss'])}; check the agent's id, or"
            " ask an officer for a token for it"
        )
    if claims["tth"] != hashed or claims["jkt"] != public.kid:
        raise SignatureClaims("the proof must cover this token and this key; make it again")
    return public


def _register(token_id: int, agent_id: str, public: PublicKey, now: float) -> AgentKey | None:
    """Return the pending key; `None` if another key has used the token."""
    with registry_change(Actor.agent(agent_id)) as change:
        row = EnrolmentToken.objects.select_for_update().get(pk=token_id)
        if row.used_at is not None:
            return _waiting_already(row, public)
        if row.expires_at.timestamp() <= now:
            raise IdentityEnrolment("the enrolment token has expired; ask an officer for another")
        agent = lock_agent(row.agent_id)
        check_unused(public.kid)
        key = AgentKey.objects.create(
            kid=public.kid, agent=agent, algorithm=public.alg, jwk=public.jwk
        )
        row.used_at = key.enrolled_at
        row.save(update_fields=["used_at"])
        body = {"kid": key.kid, "algorithm": key.algorithm, "jwk": key.jwk}
        change.enter(draft(Kind.AGENT_ENROLLED, agent, change.actor, **body))
    return key


def _waiting_already(row: EnrolmentToken, public: PublicKey) -> AgentKey | None:
    if row.agent.status == Agent.Status.REVOKED:
        raise IdentityRevoked("this agent has been revoked")
    return AgentKey.objects.pending().filter(pk=public.kid, agent=row.agent_id).first()


def _alarm(row: EnrolmentToken) -> None:
    """Enter the repeat of a used token in the trail, once for each token."""
    if row.misused_at is not None:
        return
    logger.critical("a used enrolment token of agent %s was tried again", row.agent_id)
    with registry_change(Actor.hub()) as change:
        unmarked = EnrolmentToken.objects.filter(pk=row.pk, misused_at=None)
        if unmarked.update(misused_at=datetime.now(UTC)):
            reason = (
                "a used enrolment token was tried again; who enrolled first may be the wrong one"
            )
            body = {"code": IdentityEnrolment.code, "reason": reason}
            change.enter(draft(Kind.KEY_REFUSED, row.agent, change.actor, **body))
