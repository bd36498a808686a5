"""The inputs of scores, read from the registry for many agents with one query a table.

See docs/design/trust.md#the-score. A violation counts in full for the agent that committed it, for
the agent that spawned it and for the agents that it spawned. It also counts for all agents of its
organisation: in full for those registered later, so a new registration does not remove it, and one
severity milder for those registered before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from atp.errors import AttestationError, AttestationIssuer
from atp.judging.facts import AttestationFacts
from atp.judging.judgement import best_attestation
from atp.judging.scoring import Profile, ScoredViolation, ScoreInputs, score
from atp.types import TrustLevel
from registry.issuers.standing import issuer_standing
from registry.scores.models import Conduct
from registry.scores.offences import VIOLATIONS_MAX, Offence, load_offences
from registry.scores.querysets import current_profile
from registry.scores.registered import Member, RegisteredAgents

__all__ = ["RegisteredAgents", "attested_inputs", "inputs_of"]

MILDER = {"critical": "high", "high": "medium", "medium": "low"}

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class _Known:
    """Everything read for one computation, indexed for it. `now` is in seconds since 1970."""

    now: float
    profile: Profile
    standing: Mapping[int, str]
    registered: RegisteredAgents
    members: Mapping[str, Member]
    conduct: Mapping[str, tuple[str, int]]
    by_organisation: Mapping[int, list[Offence]]
    by_agent: Mapping[str, list[Offence]]
    by_parent: Mapping[str, list[Offence]]


def inputs_of(
    agent_ids: Collection[str],
    now: float,
    *,
    profile: Profile | None = None,
    standing: Mapping[int, str] | None = None,
    registered: RegisteredAgents | None = None,
) -> dict[str, ScoreInputs]:
    """Return by agent id the inputs of its score at `now` (seconds since 1970).

    Unknown agents are left out. `profile`, `standing` and `registered` change only with the epoch:
    a caller that remembers them passes them, and then two queries remain.
    """
    if not agent_ids:
        return {}
    registered = registered or RegisteredAgents()
    members = registered.family(agent_ids)
    profile = profile or current_profile()
    offences = load_offences(members, now=now, profile=profile)
    known = _Known(
        now=now,
        profile=profile,
        standing=issuer_standing(now) if standing is None else standing,
        registered=registered,
        members=members,
        conduct=_load_conduct(members),
        by_organisation=_grouped((o.organisation, o) for o in offences),
        by_agent=_grouped((o.agent, o) for o in offences),
        by_parent=_grouped((o.parent, o) for o in offences if o.parent),
    )
    found: dict[str, ScoreInputs] = {}
    for member in members.values():
        _compute(member, known, found, ())
    return {agent_id: found[agent_id] for agent_id in agent_ids if agent_id in found}


def attested_inputs(
    agent_ids: Collection[str],
    now: float,
    *,
    standing: Mapping[int, str],
    registered: RegisteredAgents,
) -> dict[str, tuple[float, ScoreInputs]]:
    """Return inputs from keys and attestations only, without conduct and violations.

    Each has the time, in Unix seconds, until which it is valid if the registry does not change.
    These inputs are not enough for a score. Only rows that `registered` lacks are read.
    """
    found = {}
    for member in registered.family(agent_ids).values():
        best, algorithm = _vouched_for(member.id, registered, standing, now)
        dates = (
            date
            for _, facts in registered.attestations(member.id)
            for date in (facts.issued_at, facts.expires_at)
            if date > now
        )
        found[member.id] = min(dates, default=math.inf), _inputs(member, best, algorithm)
    return {agent_id: found[agent_id] for agent_id in agent_ids if agent_id in found}


def _inputs(member: Member, best: AttestationFacts | None, algorithm: str | None) -> ScoreInputs:
    return ScoreInputs(
        level=best.level if best else None,
        issued_at=best.issued_at if best else None,
        expires_at=best.expires_at if best else None,
        declared_capabilities=member.declared,
        attested_capabilities=tuple(sorted(best.capabilities)) if best else (),
        key_algorithm=algorithm,
        status=member.status,
    )


def _load_conduct(members: Mapping[str, Member]) -> dict[str, tuple[str, int]]:
    rows = Conduct.objects.filter(agent_id__in=list(members))
    return {
        agent_id: (signatures, good)
        for agent_id, signatures, good in rows.values_list(
            "agent_id", "signatures", "good_envelopes"
        )
    }


def _grouped(pairs: Iterable[tuple[_Key, Offence]]) -> dict[_Key, list[Offence]]:
    groups: dict[_Key, list[Offence]] = defaultdict(list)
    for key, offence in pairs:
        groups[key].append(offence)
    return groups


def _compute(
    member: Member, known: _Known, found: dict[str, ScoreInputs], below: tuple[str, ...]
) -> ScoreInputs:
    """Return the inputs of one agent, computed after its parent's: a parent's score is a ceiling.

    `below` are the agents whose computation needs this one; it finds cycles of parents.
    """
    if member.id not in found:
        vouched = _vouched_for(member.id, known.registered, known.standing, known.now)
        signatures, good_envelopes = known.conduct.get(member.id, ("", 0))
        found[member.id] = replace(
            _inputs(member, *vouched),
            signatures_good=signatures.count("1"),
            signatures_total=len(signatures),
            good_envelopes=good_envelopes,
            violations=_violations_of(member, known),
            parent_total=_parent_total(member, known, found, below),
        )
    return found[member.id]


def _parent_total(
    member: Member, known: _Known, found: dict[str, ScoreInputs], below: tuple[str, ...]
) -> int | None:
    """Return the parent's score; `None` without a parent; 0 if the parent is unknown or a cycle."""
    if member.parent is None:
        return None
    parent = known.members.get(member.parent)
    if parent is None or parent.id in (*below, member.id):
        return 0
    inputs = _compute(parent, known, found, (*below, member.id))
    return score(inputs, known.now, known.profile).total


def _vouched_for(
    agent_id: str, registered: RegisteredAgents, issuers: Mapping[int, str], now: float
) -> tuple[AttestationFacts | None, str | None]:
    """Return the best valid attestation of the agent's active keys, and that key's algorithm."""
    keys = registered.keys(agent_id)
    # An issuer that `issuers` does not hold counts as unknown, so it can't vouch.
    standing = [
        facts
        for issuer, facts in registered.attestations(agent_id)
        if issuers.get(issuer, AttestationIssuer.code) == ""
    ]
    best: tuple[AttestationFacts, str] | None = None
    for kid, algorithm in keys:
        try:
            one = best_attestation(standing, kid=kid, now=now)
        except AttestationError:
            continue
        if best is None or TrustLevel(one.level).rank > TrustLevel(best[0].level).rank:
            best = (one, algorithm)
    if best is None:
        return None, keys[0][1] if keys else None
    return best


def _violations_of(member: Member, known: _Known) -> tuple[ScoredViolation, ...]:
    offences = {
        id(offence): offence
        for group in (
            known.by_organisation.get(member.organisation, ()),
            known.by_agent.get(member.id, ()),
            known.by_agent.get(member.parent or "", ()),
            known.by_parent.get(member.id, ()),
        )
        for offence in group
    }
    shares = [share for offence in offences.values() if (share := _share(offence, member))]
    if len(shares) > VIOLATIONS_MAX:
        shares.sort(key=lambda share: _weight(share, known), reverse=True)
        shares = shares[:VIOLATIONS_MAX]
    return tuple(sorted(shares, key=lambda v: (-v.at, v.severity, v.rule)))


def _share(offence: Offence, member: Member) -> ScoredViolation | None:
    """Return the violation as it counts for `member`, in full or milder; `None` if it does not."""
    severity: str | None = offence.severity
    rule = offence.rule
    if offence.agent != member.id:
        rule = f"{rule} (by {offence.agent})"
        family = member.parent == offence.agent or offence.parent == member.id
        if not family and member.created_at < offence.at:
            severity = MILDER.get(offence.severity)
    if severity is None:
        return None
    return ScoredViolation(severity, int(offence.at.timestamp()), offence.open, rule)


def _weight(violation: ScoredViolation, known: _Known) -> tuple[bool, float]:
    """Return a sort key: what the violation costs now.

    An open critical one sorts highest, because it is a ceiling at any age.
    """
    half_lives = (known.now - violation.at) / (known.profile.half_life_days * 86_400)
    cost = known.profile.violation_percent.get(violation.severity, 100) * 0.5**half_lives
    return violation.open and violation.severity == "critical", cost
