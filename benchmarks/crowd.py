"""Make many agents quickly, as copies of an enrolled one; for `benchmarks.provision`."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.conf import settings
from django.db import models, transaction

from atp.trust.attestations import StatusReference, issue_attestation, trust_mark_type
from atp.trust.keys import PrivateKey
from atp.types import TrustLevel
from registry.attestations.status_list import STATUS_INDICES
from registry.hub.actions import bump_epoch
from registry.issuers.actions import signing_key
from registry.issuers.models import Issuer
from registry.issuers.querysets import agent_url, issuer_url, status_list_url
from registry.models import Agent, AgentKey, Attestation, Score

Row = TypeVar("Row", bound=models.Model)


@dataclass(frozen=True, slots=True)
class _Original:
    """The rows of the agent that is copied, and the key that signs the attestations."""

    agent: Agent
    key: AgentKey
    attestation: Attestation
    score: Score
    issuer_key: PrivateKey


def copy_agents(like: str, agent_ids: Sequence[str]) -> list[tuple[str, PrivateKey]]:
    """Make agents like the enrolled agent `like`, each with its own key and attestation.

    Return the id and the private key of each.
    """
    original = _original(like)
    pairs = [(agent, PrivateKey.generate()) for agent in agent_ids]
    indexes = _free_indexes(original.attestation.issuer, len(pairs))
    with transaction.atomic():
        bump_epoch()
        _create(Agent, (_like(original.agent, pk=agent) for agent in agent_ids))
        _create(
            AgentKey,
            (
                _like(original.key, pk=key.kid, agent_id=agent, jwk=dict(key.public.jwk))
                for agent, key in pairs
            ),
        )
        _create(
            Attestation,
            (
                _attestation(original, agent, key.kid, index)
                for (agent, key), index in zip(pairs, indexes, strict=True)
            ),
        )
        _create(Score, (_like(original.score, pk=None, agent_id=agent) for agent in agent_ids))
    return pairs


def _original(agent_id: str) -> _Original:
    attestation = (
        Attestation.objects.select_related("issuer").filter(agent_id=agent_id).latest("issued_at")
    )
    return _Original(
        agent=Agent.objects.get(pk=agent_id),
        key=AgentKey.objects.get(agent_id=agent_id),
        attestation=attestation,
        score=Score.objects.filter(agent_id=agent_id).latest("id"),
        issuer_key=signing_key(attestation.issuer),
    )


def _free_indexes(issuer: Issuer, count: int) -> list[int]:
    """Return indexes in the issuer's status list that no attestation uses."""
    taken = set(issuer.attestations.values_list("status_index", flat=True))
    drawn = secrets.SystemRandom().sample(range(STATUS_INDICES), count + len(taken))
    return [index for index in drawn if index not in taken][:count]


def _attestation(original: _Original, agent_id: str, jkt: str, status_index: int) -> Attestation:
    copied = original.attestation
    jti = secrets.token_urlsafe(16)
    token = issue_attestation(
        issuer=issuer_url(copied.issuer.slug),
        subject=agent_url(agent_id),
        mark_type=trust_mark_type(settings.ATP_PUBLIC_URL, TrustLevel(copied.level)),
        level=TrustLevel(copied.level),
        capabilities=copied.capabilities,
        jkt=jkt,
        jti=jti,
        status=StatusReference(uri=status_list_url(copied.issuer.slug), index=status_index),
        expires_at=int(copied.expires_at.timestamp()),
        issuer_key=original.issuer_key,
        now=int(copied.issued_at.timestamp()),
    )
    return _like(copied, pk=jti, agent_id=agent_id, jkt=jkt, status_index=status_index, token=token)


def _like(row: Row, **changes: Any) -> Row:
    """Return a copy of a row with these changes, not stored yet."""
    made = copy.copy(row)
    made._state = copy.copy(row._state)
    made._state.adding = True
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def _create(model: type[Row], rows: Iterable[Row]) -> None:
    model._default_manager.bulk_create(rows)
