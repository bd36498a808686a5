"""Reads the violations that can lower some agents' scores, in bounded time and memory."""

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

HALF_LIVES_REMEMBERED = 20  # after that a violation weighs a millionth
VIOLATIONS_MAX = 100  # in one agent's inputs, the heaviest; 20 low ones already cost all points
OFFENCES_MAX = 2_000  # up to here all are read; beyond, only those that can be among the heaviest

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
    """The members of a violation on which scores depend."""

    id: int
    agent: str
    parent: str | None
    organisation: int
    severity: str
    at: datetime
    open: bool
    rule: str


def load_offences(members: Mapping[str, Member], *, now: float, profile: Profile) -> list[Offence]:
    """Return the violations that lower any of these agents' scores at `now`, newest first.

    `now` is in seconds since 1970. If there are more than `OFFENCES_MAX`, only those are read
    that can be among the `VIOLATIONS_MAX` heaviest of an agent.
    """
    memory = timedelta(days=profile.half_life_days * HALF_LIVES_REMEMBERED)
    weighing = violations().weighing_at(datetime.fromtimestamp(now, UTC), memory=memory)
    organisations = {m.organisation for m in members.values()}
    concerning = weighing.concerning(agents=list(members), organisations=organisations)
    found = _read(concerning.order_by()[: OFFENCES_MAX + 1])
    if len(found) > OFFENCES_MAX:
        found = list({o.id: o for o in _of_a_flood(weighing, members)}.values())
    return sorted(found, key=lambda o: (o.at, o.id), reverse=True)


def _of_a_flood(weighing: ViolationQuerySet, members: Mapping[str, Member]) -> Iterator[Offence]:
    """Yield the newest violations of each severity, of each agent and of its organisation.

    Of two with the same severity the newer one weighs more. But violations from before an agent's
    registration count in full for it and later ones milder. So the newest ones before the
    registration of each agent are read too.
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
    """Return the agents (or organisations) that have more than `VIOLATIONS_MAX` violations."""
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
