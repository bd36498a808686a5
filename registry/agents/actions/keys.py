"""Officers' decisions about an agent's key: approve, refuse or revoke it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from atp.errors import KeyRevoked, KeyUnknown, SessionRevoked, SessionSuperseded, excerpt
from registry import hooks
from registry.agents.actions.life import check_compromised, draft, lock_agent
from registry.agents.models import Agent, AgentKey
from registry.change import registry_change
from registry.officers.actor import Actor
from registry.officers.reason import check_reason
from registry.scores.actions import discount_traffic, restate
from registry.trail.kinds import Kind


def approve_key(
    kid: str, *, actor: Actor, reason: str = "", revoke_earlier: bool = False
) -> AgentKey:
    """Let a pending key sign, after an officer has compared its fingerprint.

    A pending agent becomes active. The agent's earlier key retires: it can't sign any more, and
    what it has signed still verifies. With `revoke_earlier` the earlier key is revoked instead.
    Raises `KeyUnknown` if no agent has the key, `KeyRevoked` if it is not pending, and
    `IdentityRevoked` if the agent is revoked.
    """
    reason = check_reason(reason, required=False)
    with registry_change(actor) as change:
        key, agent = _lock_key(kid)
        _check_pending(key)
        now = datetime.now(UTC)
        earlier = list(AgentKey.objects.usable().select_for_update(no_key=True).filter(agent=agent))
        for old in earlier:
            old.status = AgentKey.Status.REVOKED if revoke_earlier else AgentKey.Status.RETIRED
            old.ended_at = now
            old.save(update_fields=["status", "ended_at"])
        key.status, key.approved_at = AgentKey.Status.ACTIVE, now
        key.save(update_fields=["status", "approved_at"])
        activated = _activate(agent, now, reason)
        if earlier:
            code = SessionRevoked.code if revoke_earlier else SessionSuperseded.code
            hooks.close_sockets([agent.id], code)
        body = {
            "kid": key.kid,
            "algorithm": key.algorithm,
            "retired": [old.kid for old in earlier if not revoke_earlier],
            "revoked": [old.kid for old in earlier if revoke_earlier],
            "reason": reason,
        }

        def note_approval(index: int) -> None:
            _note_entry(earlier, good_until_entry=index)
            _note_entry([key], good_from_entry=index)
            key.good_from_entry = index

        change.enter_noted(draft(Kind.KEY_APPROVED, agent, actor, **body), note_approval)
        if activated:
            change.enter(draft(Kind.AGENT_APPROVED, agent, actor, kid=key.kid, reason=reason))
        change.enter(*restate([agent.id], Kind.KEY_APPROVED))
    return key


def refuse_key(kid: str, *, actor: Actor, reason: str) -> AgentKey:
    """Refuse a pending key. Its row stays, so the same key can't be registered again.

    Raises `KeyUnknown` if no agent has the key and `KeyRevoked` if it is not pending.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        key, agent = _lock_key(kid)
        _check_pending(key)
        _revoke([key])
        change.enter(draft(Kind.KEY_REFUSED, agent, actor, kid=key.kid, reason=reason))
    return key


def revoke_key(
    kid: str, *, actor: Actor, reason: str, compromised_since: datetime | None = None
) -> AgentKey:
    """Revoke a key at once. The agent's sockets close, and the agent must enrol another key.

    `compromised_since` says since when another party may have had the key. Keys rotated from it
    since then are revoked too, because a thief could have made them. What was signed since then
    is marked and no longer counts for the score.

    Raises `KeyUnknown` if no agent has the key, `KeyRevoked` if it is revoked already, and
    `MalformedDocument` if `compromised_since` lies in the future or has no time zone.
    """
    reason = check_reason(reason)
    since = check_compromised(compromised_since)
    with registry_change(actor) as change:
        key, agent = _lock_key(kid)
        if key.status == AgentKey.Status.REVOKED:
            raise KeyRevoked("this key has been revoked already")
        keys = [key, *(_rotated_since(key, since) if since else ())]
        _revoke(keys, since)
        hooks.close_sockets([agent.id], SessionRevoked.code)
        if since is not None:
            discount_traffic(agent.id, since)
        body: dict[str, Any] = {"kids": [each.kid for each in keys], "reason": reason}
        if since is not None:
            body["compromisedSince"] = since.isoformat()
        revoked = draft(Kind.KEY_REVOKED, agent, actor, **body)
        used = [each for each in keys if each.good_from_entry]
        change.enter_noted(revoked, lambda index: _note_entry(used, good_until_entry=index))
        change.enter(*restate([agent.id], Kind.KEY_REVOKED))
    return key


def _lock_key(kid: str) -> tuple[AgentKey, Agent]:
    found = AgentKey.objects.filter(pk=kid).values_list("agent_id", flat=True).first()
    if found is None:
        raise KeyUnknown(f"no agent has a key {excerpt(kid)}")
    agent = lock_agent(found)
    return AgentKey.objects.select_for_update(no_key=True).get(pk=kid), agent


def _check_pending(key: AgentKey) -> None:
    if key.status != AgentKey.Status.PENDING:
        raise KeyRevoked(f"this key does not wait for an officer; it is {key.status}")


def _activate(agent: Agent, now: datetime, reason: str) -> bool:
    """Make a pending agent active; return whether it was pending."""
    agent.approved_at = agent.approved_at or now
    activated = agent.status == Agent.Status.PENDING
    if activated:
        agent.status, agent.status_reason = Agent.Status.ACTIVE, reason
    agent.save(update_fields=["status", "status_reason", "approved_at"])
    return activated


def _rotated_since(key: AgentKey, since: datetime) -> Iterable[AgentKey]:
    """Return, locked, the keys that come from `key` by rotations at or after `since`."""
    found: dict[str, AgentKey] = {}
    parents = [key.kid]
    while parents:
        children = AgentKey.objects.select_for_update(no_key=True).filter(
            rotated_from__in=parents, enrolled_at__gte=since
        )
        fresh = {child.kid: child for child in children if child.kid not in found}
        found |= fresh
        parents = list(fresh)
    return found.values()


def _revoke(keys: Iterable[AgentKey], since: datetime | None = None) -> None:
    for key in keys:
        key.status, key.ended_at = AgentKey.Status.REVOKED, datetime.now(UTC)
        key.compromised_since = since
        key.save(update_fields=["status", "ended_at", "compromised_since"])


def _note_entry(keys: Iterable[AgentKey], **indices: int) -> None:
    """Write trail indexes to keys whose rows are already locked.

    It runs after the entry is appended, because only then the index is known.
    """
    AgentKey.objects.filter(pk__in=[key.pk for key in keys]).update(**indices)
