"""Actions on an agent itself: register, change, suspend, resume, revoke."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from atp.errors import (
    IdentityInvalidId,
    IdentityNotActive,
    IdentityRevoked,
    IdentityUnknown,
    MalformedDocument,
    SessionRevoked,
    excerpt,
)
from atp.trust.capabilities import is_capability
from atp.types import check_agent_id
from atp.wire.member_paths import below
from registry import hooks
from registry.agents.actions.organisations import add_missing_tags
from registry.agents.models import Agent, AgentKey, EnrolmentToken, Organisation
from registry.change import registry_change
from registry.hub.actions import hub_id
from registry.officers.actor import Actor
from registry.officers.reason import check_reason
from registry.plain_text import check_text
from registry.scores.actions import discount_traffic, restate
from registry.storage.row_fields import check_fields
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

DECLARED_MAX = 256  # capabilities that an agent may declare
RESERVED_IDS = frozenset({"hub"})  # how the trail names the hub itself
CHANGEABLE = (
    "organisation", "owner_name", "owner_contact", "description", "declared_capabilities",
    "sensitivity_floor", "minimum_level", "minimum_score",
)  # fmt: skip
# What people type, and whether it may have several lines.
TEXTS = {"owner_name": False, "owner_contact": False, "description": True}
_LOCKED_KEYS = {AgentKey.Status.PENDING, AgentKey.Status.ACTIVE}


def register_agent(
    agent_id: str,
    *,
    organisation: Organisation,
    owner_name: str,
    actor: Actor,
    owner_contact: str = "",
    description: str = "",
    tags: Iterable[str] = (),
    declared_capabilities: Iterable[str] = (),
    sensitivity_floor: str = "public",
    minimum_level: str = "",
    minimum_score: int = 0,
    parent: Agent | None = None,
) -> Agent:
    """Register an agent. It is pending until an officer approves a key of it.

    Raises `IdentityInvalidId` if the id is malformed, reserved or taken, and `MalformedDocument`
    if another field is invalid.
    """
    with below("declared_capabilities"):
        declared = check_capabilities(declared_capabilities)
    row = Agent(
        id=_check_new_id(agent_id),
        organisation=organisation,
        owner_name=check_text(owner_name, "owner_name"),
        owner_contact=check_text(owner_contact, "owner_contact"),
        description=check_text(description, "description", lines=True),
        declared_capabilities=declared,
        sensitivity_floor=sensitivity_floor,
        minimum_level=minimum_level,
        minimum_score=minimum_score,
        parent=parent,
    )
    with registry_change(actor) as change:
        if Agent.objects.filter(pk=agent_id).exists():
            raise IdentityInvalidId(f"there is an agent {agent_id} already")
        check_fields(row, exclude=["id"])
        row.save(force_insert=True)
        labels, drafts = add_missing_tags(sorted(set(tags)), actor=actor)
        row.tags.set(labels)
        created = draft(Kind.AGENT_CREATED, row, actor, after=described(row))
        change.enter(*drafts, created, *restate([row.id], Kind.AGENT_CREATED))
    return row


def change_agent(
    agent_id: str,
    changes: Mapping[str, Any],
    *,
    actor: Actor,
    reason: str,
    tags: Iterable[str] | None = None,
) -> Agent:
    """Set the fields named in `changes`, each one of `CHANGEABLE`; replace the tags if given.

    If nothing differs, the trail gets no entry. Raises `MalformedDocument` if a field is unknown
    or invalid, `IdentityUnknown` if there is no such agent, `IdentityRevoked` if it is revoked.
    """
    reason = check_reason(reason)
    if unknown := changes.keys() - set(CHANGEABLE):
        raise MalformedDocument(f"{excerpt(min(unknown))} of an agent can't be changed")
    with registry_change(actor) as change:
        row = lock_agent(agent_id)
        before, organisation = described(row), row.organisation.uid
        for name, value in changes.items():
            is_typed = name in TEXTS
            setattr(row, name, check_text(value, name, lines=TEXTS[name]) if is_typed else value)
        with below("declared_capabilities"):
            row.declared_capabilities = check_capabilities(row.declared_capabilities)
        check_fields(row, exclude=["id"])
        row.save(update_fields=[*CHANGEABLE])
        drafts: list[EntryDraft] = []
        if tags is not None:
            labels, drafts = add_missing_tags(sorted(set(tags)), actor=actor)
            row.tags.set(labels)
        after = described(row)
        changed = {name for name in after if after[name] != before[name]}
        if changed:
            told = draft(
                Kind.AGENT_CHANGED,
                row,
                actor,
                before={name: before[name] for name in sorted(changed)},
                after={name: after[name] for name in sorted(changed)},
                reason=reason,
            )
            # Both organisations may read of a move from one to the other.
            drafts.append(replace(told, organisations=(organisation, row.organisation.uid)))
            drafts += restate([row.id], Kind.AGENT_CHANGED)
        change.enter(*drafts)
    return row


def suspend_agent(agent_id: str, *, actor: Actor, reason: str) -> Agent:
    """Suspend an agent: its sockets close, and the hub accepts and delivers none of its envelopes.

    Raises `IdentityNotActive` if it is suspended already and `IdentityRevoked` if it is revoked.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        row = lock_agent(agent_id)
        if row.status == Agent.Status.SUSPENDED:
            raise IdentityNotActive("this agent is suspended already")
        before = row.status
        _set_status(row, Agent.Status.SUSPENDED, reason)
        hooks.close_sockets([row.id], SessionRevoked.code)
        suspended = draft(Kind.AGENT_SUSPENDED, row, actor, before=before, reason=reason)
        change.enter(suspended, *restate([row.id], Kind.AGENT_SUSPENDED))
    return row


def resume_agent(agent_id: str, *, actor: Actor, reason: str) -> Agent:
    """Let a suspended agent work again. If it was never approved, it is pending again.

    Raises `IdentityNotActive` if it is not suspended and `IdentityRevoked` if it is revoked.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        row = lock_agent(agent_id)
        if row.status != Agent.Status.SUSPENDED:
            raise IdentityNotActive(f"this agent is {row.status}, not suspended")
        approved = row.approved_at is not None
        _set_status(row, Agent.Status.ACTIVE if approved else Agent.Status.PENDING, reason)
        restored = draft(Kind.AGENT_RESTORED, row, actor, after=row.status, reason=reason)
        change.enter(restored, *restate([row.id], Kind.AGENT_RESTORED))
    return row


def revoke_agent(
    agent_id: str, *, actor: Actor, reason: str, compromised_since: datetime | None = None
) -> Agent:
    """Revoke an agent for good, with its keys and open enrolment tokens; its sockets close.

    `compromised_since` says since when another party may have signed for the agent; what was
    signed since then no longer counts for the score. Raises `IdentityRevoked` if the agent is
    revoked already, and `MalformedDocument` if `compromised_since` lies in the future or has no
    time zone.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        row = lock_agent(agent_id)
        before = row.status
        row.compromised_since = check_compromised(compromised_since)
        _set_status(row, Agent.Status.REVOKED, reason)
        ended = end_keys(row)
        if row.compromised_since is not None:
            discount_traffic(row.id, row.compromised_since)
        EnrolmentToken.objects.open_at(row_ended(row)).filter(agent=row).update(
            expires_at=row_ended(row)
        )
        body = {"before": before, "reason": reason, "keys": [key.kid for key in ended]}
        if compromised_since is not None:
            body["compromisedSince"] = compromised_since.isoformat()
        hooks.close_sockets([row.id], SessionRevoked.code)
        keys = AgentKey.objects.filter(pk__in=[key.pk for key in ended])
        change.enter_noted(
            draft(Kind.AGENT_REVOKED, row, actor, **body),
            lambda index: keys.update(good_until_entry=index),
        )
        change.enter(*restate([row.id], Kind.AGENT_REVOKED))
    return row


def lock_agent(agent_id: str) -> Agent:
    """Return the agent's row, locked until the transaction ends.

    Raises `IdentityUnknown` if there is no such agent, and `IdentityRevoked` if it is revoked:
    revocation is final, so no action changes a revoked agent.
    """
    row = Agent.objects.select_for_update(no_key=True).filter(pk=agent_id).first()
    if row is None:
        raise IdentityUnknown(f"there is no agent {excerpt(agent_id)}")
    if row.status == Agent.Status.REVOKED:
        raise IdentityRevoked("this agent has been revoked, which is final; register another one")
    return row


def end_keys(agent: Agent) -> list[AgentKey]:
    """Revoke the active and pending keys of a locked agent, and return them."""
    keys = list(
        AgentKey.objects.select_for_update(no_key=True).filter(agent=agent, status__in=_LOCKED_KEYS)
    )
    now = datetime.now(UTC)
    for key in keys:
        key.status, key.ended_at = AgentKey.Status.REVOKED, now
        key.compromised_since = agent.compromised_since
    AgentKey.objects.bulk_update(keys, ["status", "ended_at", "compromised_since"])
    return keys


def row_ended(row: Agent) -> datetime:
    """Return when the agent was suspended or revoked. Call it only for such an agent."""
    assert row.ended_at is not None
    return row.ended_at


def check_compromised(since: datetime | None) -> datetime | None:
    """Return `since`; raise `MalformedDocument` if it lies in the future or has no time zone."""
    if since is None:
        return None
    if since.tzinfo is None or since > datetime.now(UTC):
        raise MalformedDocument(
            "'compromised since' must be a time in the past, with its time zone",
            field="compromised_since",
        )
    return since


def check_capabilities(names: Iterable[str]) -> list[str]:
    """Return the names sorted, without duplicates.

    Raises `MalformedDocument` if there are more than `DECLARED_MAX` names or one is malformed.
    """
    unique = sorted(set(names))
    if len(unique) > DECLARED_MAX:
        raise MalformedDocument(f"there may be at most {DECLARED_MAX} capabilities")
    for name in unique:
        if not is_capability(name):
            raise MalformedDocument(
                f"{excerpt(name)} is not a capability; write segments of lower-case letters,"
                " digits, - and _, joined by dots"
            )
    return unique


def described(row: Agent) -> dict[str, Any]:
    """Return the agent's registration as JSON, for the body of an entry."""
    return {
        "organisation": row.organisation.name,
        "organisationUid": row.organisation.uid,
        "ownerName": row.owner_name,
        "ownerContact": row.owner_contact,
        "description": row.description,
        "tags": sorted(tag.name for tag in row.tags.all()),
        "declaredCapabilities": list(row.declared_capabilities),
        "sensitivityFloor": row.sensitivity_floor,
        "minimumLevel": row.minimum_level,
        "minimumScore": row.minimum_score,
        "parent": row.parent_id or "",
    }


def draft(kind: Kind, row: Agent, actor: Actor, **body: Any) -> EntryDraft:
    """Return a draft of an entry whose subject is the agent; `body` holds its further members."""
    organisations = (row.organisation.uid,)
    return EntryDraft(
        kind=kind, actor=actor.name, subject=row.id, organisations=organisations, shared=body
    )


def _set_status(row: Agent, status: str, reason: str) -> None:
    ended = status in (Agent.Status.SUSPENDED, Agent.Status.REVOKED)
    row.status, row.status_reason = status, reason
    row.ended_at = datetime.now(UTC) if ended else None
    row.save(update_fields=["status", "status_reason", "ended_at", "compromised_since"])


def _check_new_id(agent_id: str) -> str:
    check_agent_id(agent_id)
    if agent_id in RESERVED_IDS or agent_id == hub_id():
        raise IdentityInvalidId(f"{agent_id} is the hub's own name; choose another one")
    return agent_id
