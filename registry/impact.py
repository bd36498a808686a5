"""What a decision that takes trust away does now, in numbers, for the page that asks about it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from copy import copy
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q

from atp.errors import AttestationRevoked
from registry import hooks
from registry.agents.models import Agent, AgentKey
from registry.attestations.actions import exceeds
from registry.attestations.querysets import attestations, left_without_voucher, states
from registry.issuers.actions import Limits
from registry.issuers.models import Issuer
from registry.issuers.standing import issuer_standing, narrowing_fault


def of_issuer(issuer: Issuer) -> str:
    """Return what suspending or revoking this issuer does, in a sentence."""
    below = _below(issuer)
    affected = {issuer.pk, *below}
    standing = issuer_standing(time.time())
    ended = dict.fromkeys(affected, AttestationRevoked.code)
    agents = _agents_of(Q(issuer_id__in=affected))
    cut_off = left_without_voucher(agents, {**standing, **ended}, time.time())
    cut_off -= left_without_voucher(agents, standing, time.time())
    active = Issuer.objects.filter(pk__in=below, status=Issuer.Status.ACTIVE).count()
    return _losses(Q(issuer_id__in=affected), issuers=active, cut_off=cut_off)


def of_limits(issuer: Issuer, limits: Limits) -> str:
    """Return what other limits for this issuer take away, in a sentence; '' if nothing."""
    changed = copy(issuer)
    for name, value in asdict(limits).items():
        setattr(changed, name, value)
    rows = _in_date().filter(issuer=issuer)
    affected = Q(jti__in=[row.jti for row in rows if exceeds(row, changed)])
    children = issuer.children.filter(status=Issuer.Status.ACTIVE)
    wider = [child for child in children if narrowing_fault(child, changed)]
    if not _is_in_period(limits):
        affected, wider = Q(issuer=issuer), list(children)
    below = {pk for child in wider for pk in (child.pk, *_below(child))}
    affected |= Q(issuer_id__in=below)
    active = Issuer.objects.filter(pk__in=below, status=Issuer.Status.ACTIVE).count()
    return _losses(affected, issuers=active) if active or _agents_of(affected) else ""


def of_issuer_key(kid: str) -> str:
    """Return what revoking this key of an issuer does, in a sentence."""
    return _losses(Q(kid=kid))


def of_attestation(jti: str) -> str:
    """Return what revoking this attestation does, in a sentence."""
    return _losses(Q(jti=jti))


def of_agents(ids: Collection[str]) -> str:
    """Return what suspending or revoking these agents does, in a sentence."""
    children = Agent.objects.active().filter(parent_id__in=ids).exclude(pk__in=ids).count()
    return _sentence(
        sockets=hooks.open_sockets(ids),
        more=[f"{_does(children, 'agent below', 'fall')} to score 0"] if children else [],
    )


def of_agent_key(key: AgentKey) -> str:
    """Return what revoking this key of an agent does, in a sentence."""
    in_use = key.status == AgentKey.Status.ACTIVE
    return _sentence(sockets=hooks.open_sockets([key.agent_id]) if in_use else 0)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 agent", "3 agents"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def _losses(affected: Q, *, issuers: int = 0, cut_off: Collection[str] = ()) -> str:
    """Return a sentence about the agents for which the affected attestations count now."""
    agents = _agents_of(affected)
    hit = set(attestations().filter(affected, agent_id__in=agents).values_list("jti", flat=True))
    usable = AgentKey.objects.usable().filter(agent_id__in=agents).values("kid")
    rows = list(_in_date().filter(agent_id__in=agents, jkt__in=usable))
    worth = states(rows, time.time())
    counting = [row for row in rows if worth[row.jti].name == "valid"]
    lose = {row.agent_id for row in counting if row.jti in hit}
    others = {row.agent_id for row in counting if row.jti not in hit}
    if issuers:
        who = f"{counted(len(lose), 'agent')} and {counted(issuers, 'issuer')} below"
        told = [f"{who} lose their attestation"]
    else:
        told = [f"{_does(len(lose), 'agent', 'lose')} an attestation"]
    if alone := len(lose - others):
        told.append(f"{alone} of the agents {'has' if alone == 1 else 'have'} no other")
    return _sentence(sockets=hooks.open_sockets(cut_off) if cut_off else 0, more=told)


def _sentence(*, sockets: int, more: Iterable[str] = ()) -> str:
    closing = f"{_does(sockets, 'socket', 'close')} now" if sockets else "no socket closes"
    return f"{', '.join([*more, closing])}.".capitalize()


def _does(count: int, noun: str, verb: str) -> str:
    """Return a number with noun and verb: "1 socket closes", "2 agents below fall"."""
    first, _, rest = noun.partition(" ")
    subject = f"{counted(count, first)} {rest}".strip()
    return f"{subject} {verb}{'s' * (count == 1)}"


def _is_in_period(limits: Limits) -> bool:
    now = datetime.now(UTC)
    begun = limits.not_before is None or limits.not_before <= now
    return begun and (limits.not_after is None or now < limits.not_after)


def _agents_of(affected: Q) -> set[str]:
    rows = _in_date().filter(affected, agent__status=Agent.Status.ACTIVE)
    return set(rows.order_by().values_list("agent_id", flat=True))


def _in_date() -> Any:
    return attestations().in_date_at(datetime.now(UTC)).filter(unreadable_reason="")


def _below(issuer: Issuer) -> set[int]:
    """Return the issuers below this one, at any depth; a ring ends the walk."""
    children: dict[int | None, list[int]] = {}
    for pk, parent in Issuer.objects.order_by().values_list("pk", "parent_id"):
        children.setdefault(parent, []).append(pk)
    found: set[int] = set()
    waiting = [issuer.pk]
    while waiting:
        fresh = set(children.get(waiting.pop(), ())) - found - {issuer.pk}
        found |= fresh
        waiting += fresh
    return found
