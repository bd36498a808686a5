"""The violations that bear on some agents' scores, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery

from atp.judging.scoring import Profile
from atp.wire.words import SEVERITIES
from registry.agents.models import Agent, Organisation
from registry.scores.models import Violation
from registry.scores.querysets import ViolationQuerySet, violations
from registry.scores.registered import Member

__all__ = ["VIOLATIONS_MAX", "Offence", "load_offences"]

HALF_LIVES_REMEMBERED = 20  # then a violation weighs a millionth
VIOLATIONS_MAX = 100  # in one agent's inputs, the weightiest; 20 low ones cost everything already
OFFENCES_MAX = 2_000  # read as they come; beyond, only those that can be among the weightiest

_COLUMNS = (
    "id",
    "agent_id",
    "agent__parent_id",
    "organisation_id",
    "severity",
    "at",
    "closed_at",
    "rule",
)


@dataclass(frozen=True, slots=True)
class Offence:
    """A violation as far as scores depend on it."""

    id: int
    agent: str
    parent: str | None
    organisation: int
    severity: str
    at: datetime
    open: bool
    rule: str


def load_offences(members: Mapping[str, Member], *, now: float, profile: Profile) -> list[Offence]:
    """What weighs at `now` on any of these agents; of a flood, what can be among the weightiest."""
    memory = timedelta(days=profile.half_life_days * HALF_LIVES_REMEMBERED)
    weighing = violations().weighing_at(datetime.fromtimestamp(now, UTC), memory=memory)
    organisations = {m.organisation for m in members.values()}
    concerning = weighing.concerning(agents=list(members), organisations=organisations)
    found = _read(concerning.order_by()[: OFFENCES_MAX + 1])
    if len(found) > OFFENCES_MAX:
        found = list({o.id: o for o in _of_a_flood(weighing, members)}.values())
    return sorted(found, key=lambda o: (o.at, o.id), reverse=True)


def _of_a_flood(weighing: ViolationQuerySet, members: Mapping[str, Member]) -> Iterator[Offence]:
    """The newest of each severity: of each agent by itself, and of its organisation.

    Of the same severity the newer one weighs more, but what an organisation did before an agent
    registered weighs in full on that one: so the newest before that moment are among them.
    """
    family = Agent.objects.filter(parent_id__in=list(members)).values_list("id", flat=True)
    agents = {*members, *family}
    flooding = _flooding(weighing, Agent.objects.filter(pk__in=agents), "agent_id")
    yield from _read(weighing.filter(agent_id__in=agents - flooding))
    for agent in flooding:
        yield from _newest(weighing.filter(agent_id=agent))
    organisations = {m.organisation for m in members.values()}
    some = Organisation.objects.filter(pk__in=organisations)
    flooding = _flooding(weighing, some, "organisation_id")
    yield from _read(weighing.filter(organisation_id__in=organisations - flooding))
    for organisation in flooding:
        ours = weighing.filter(organisation_id=organisation)
        yield from _newest(ours)
        for moment in {m.created_at for m in members.values() if m.organisation == organisation}:
            yield from _newest(ours.filter(at__lte=moment))


def _flooding(weighing: ViolationQuerySet, owners: QuerySet[Any], column: str) -> set[Any]:
    """Those of these agents, or organisations, that have more than count for one agent."""
    beyond = weighing.filter(**{column: OuterRef("pk")}).order_by().values("pk")
    rows = owners.order_by().annotate(beyond=Subquery(beyond[VIOLATIONS_MAX : VIOLATIONS_MAX + 1]))
    return set(rows.exclude(beyond=None).values_list("pk", flat=True))


def _newest(some: ViolationQuerySet) -> Iterator[Offence]:
    for severity in SEVERITIES:
        yield from _read(some.filter(severity=severity).order_by("-at")[:VIOLATIONS_MAX])


def _read(rows: QuerySet[Violation]) -> list[Offence]:
    return [
        Offence(pk, agent, parent, organisation, severity, at, closed_at is None, rule)
        for pk, agent, parent, organisation, severity, at, closed_at, rule in rows.values_list(
            *_COLUMNS
        )
    ]
