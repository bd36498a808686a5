"""Reads everything that the page of an agent shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from atp.errors import BY_CODE
from atp.judging.scoring import ScoreLine, TrustScore, explain, score
from registry import hooks
from registry.agents.models import Agent, AgentKey, EnrolmentToken
from registry.attestations.models import Attestation
from registry.attestations.querysets import State, states
from registry.hooks import LiveSession
from registry.scores.inputs import inputs_of
from registry.scores.models import Violation
from registry.scores.querysets import current_profile
from registry.trail.kinds import Kind
from registry.trail.models import Entry, RefusalCount

SHOWN = 10  # rows of each list on the page; the lists' own pages have all rows


@dataclass(frozen=True, slots=True)
class EnvelopeEntry:
    """An envelope's entry in the trail, with code and detail if it was denied."""

    entry: Entry
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A count of the agent's refused logins or unreadable envelopes with one error code.

    `at` is the minute of the last one. `entry` is `None` until the count is entered in the trail.
    """

    code: str
    meaning: str
    count: int
    at: datetime
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that the page of an agent shows, apart from its own row.

    `next_step` is what an officer has to do: `approve`, `invite`, `wait`, `attest` or ''.
    """

    keys: Sequence[AgentKey]
    pending_keys: Sequence[AgentKey]
    attestations: Sequence[tuple[Attestation, State]]
    token: EnrolmentToken | None
    misused_token: EnrolmentToken | None
    trust: TrustScore | None
    reasons: Sequence[ScoreLine]
    online: bool
    sessions: Sequence[LiveSession]
    last_session: Entry | None
    violations: Sequence[Violation]
    exchanges: Sequence[EnvelopeEntry]
    refusals: Sequence[Refusal]
    entries: Sequence[Entry]
    next_step: str


def overview_of(agent: Agent) -> Overview:
    """Read the overview of an agent; the number of queries does not grow with its history."""
    now = time.time()
    keys = list(agent.keys.all())
    pending = [key for key in keys if key.status == AgentKey.Status.PENDING]
    attested = list(agent.attestations.select_related("issuer")[:SHOWN])
    worth = states(attested, now)
    token = agent.enrolment_tokens.order_by("-created_at").first()
    trust = trust_of(agent, now)
    return Overview(
        keys=keys,
        pending_keys=pending,
        attestations=[(row, worth[row.jti]) for row in attested],
        token=token,
        misused_token=agent.enrolment_tokens.exclude(misused_at=None).first() if pending else None,
        trust=trust,
        reasons=explain(trust) if trust else (),
        online=agent.pk in hooks.online_agents([agent.pk]),
        sessions=hooks.live_sessions(agent.pk),
        last_session=_entries_of(sender=agent.pk, kind="session.opened").first(),
        violations=list(agent.violations.filter(closed_at=None)[:SHOWN]),
        exchanges=_exchanges(agent.pk),
        refusals=_refusals(agent.pk),
        entries=list(_entries_of(subject=agent.pk)[:SHOWN]),
        next_step=_next_step(agent, keys, pending, worth, token),
    )


def trust_of(agent: Agent, now: float) -> TrustScore | None:
    """Compute the agent's score at `now` (seconds since 1970), without storing it."""
    profile = current_profile()
    inputs = inputs_of([agent.pk], now, profile=profile).get(agent.pk)
    return score(inputs, now, profile) if inputs else None


def _next_step(
    agent: Agent,
    keys: Sequence[AgentKey],
    pending: Sequence[AgentKey],
    worth: dict[str, State],
    token: EnrolmentToken | None,
) -> str:
    """Return the next step of an officer before this agent is trusted.

    It is '' if the agent has a valid attestation, or is suspended or revoked.
    """
    if agent.status in (Agent.Status.REVOKED, Agent.Status.SUSPENDED):
        return ""
    if pending:
        return "approve"
    if not any(key.status == AgentKey.Status.ACTIVE for key in keys):
        invited = token and token.used_at is None and token.expires_at > datetime.now(UTC)
        return "wait" if invited else "invite"
    return "" if any(state.name == "valid" for state in worth.values()) else "attest"


def _entries_of(**which: str) -> Any:
    return Entry.objects.filter(**which).order_by("-position")


def _exchanges(agent_id: str) -> list[EnvelopeEntry]:
    """Return the newest envelopes from or to the agent; two queries, each with its own index."""
    kinds = ("envelope.accepted", "envelope.denied")
    found: dict[int, Entry] = {}
    for side in ("sender", "recipient"):
        rows = Entry.objects.filter(**{side: agent_id}, kind__in=kinds).select_related("body")
        found |= {row.position: row for row in rows.order_by("-position")[:SHOWN]}
    newest = sorted(found.values(), key=lambda row: row.position, reverse=True)[:SHOWN]
    return [_exchange(row) for row in newest]


def _exchange(row: Entry) -> EnvelopeEntry:
    body = _body(row)
    return EnvelopeEntry(row, body.get("code", ""), body.get("detail", ""))


def _body(entry: Entry) -> dict[str, Any]:
    return entry.body.read()


def _refusals(agent_id: str) -> list[Refusal]:
    """Return the agent's newest refusals: counts not entered yet, then those in the trail."""
    counting = RefusalCount.objects.filter(agent=agent_id).order_by("-minute", "code")[:SHOWN]
    found = [_refusal(row.code, row.count, row.minute) for row in counting]
    entered = _entries_of(sender=agent_id, kind=Kind.REFUSALS_COUNTED).select_related("body")
    for entry in entered[:SHOWN]:
        body = _body(entry)
        at = max(
            (datetime.fromisoformat(m) for m, _ in body.get("minutes", ())), default=entry.time
        )
        found.append(_refusal(entry.subject, body.get("count", 1), at, entry))
    # Refused logins of people are counted in the same table; their code has no meaning here.
    return [one for one in found if one.meaning][:SHOWN]


def _refusal(code: str, count: int, at: datetime, entry: Entry | None = None) -> Refusal:
    meaning = (BY_CODE[code].__doc__ or code) if code in BY_CODE else ""
    return Refusal(code, meaning, count, at, entry)
