"""Reads of scores, violations and the scoring profile in force."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import models
from django.db.models import Max, OuterRef, Q, Subquery

from atp.judging import scoring
from atp.judging.scoring import DEFAULT_PROFILE, Profile, ScoreInputs, TrustScore
from registry.agents.models import Agent
from registry.policies.querysets import score_thresholds
from registry.scores.models import Score, ScoringProfile, Violation
from registry.trail.kinds import Kind
from registry.trail.logs import known
from registry.trail.models import Entry, EntryBody


class ScoreQuerySet(models.QuerySet[Score]):
    """Filters for stored scores."""

    def newest(self) -> ScoreQuerySet:
        """Return the current score of each agent."""
        ids = self.order_by().values("agent").annotate(newest=Max("id")).values("newest")
        return self.filter(id__in=ids)

    def about(self, agents: Collection[str]) -> ScoreQuerySet:
        """Return all stored scores of these agents, old ones included."""
        return self.filter(agent_id__in=agents)


class ViolationQuerySet(models.QuerySet[Violation]):
    """Filters for violations."""

    def weighing_at(self, now: datetime, *, memory: timedelta) -> ViolationQuerySet:
        """Return violations younger than `memory`, and open critical ones of any age.

        Annulled ones are left out.
        """
        open_critical = Q(closed_at=None, severity="critical")
        return self.filter(Q(at__gt=now - memory) | open_critical, annulled_at=None)

    def concerning(
        self, *, agents: Collection[str], organisations: Collection[int]
    ) -> ViolationQuerySet:
        """Return violations of these agents, of agents they spawned, and of these organisations."""
        return self.filter(
            Q(agent_id__in=agents)
            | Q(agent__parent_id__in=agents)
            | Q(organisation_id__in=organisations)
        )


def scores() -> ScoreQuerySet:
    """Return all stored scores."""
    return ScoreQuerySet(Score)


def violations() -> ViolationQuerySet:
    """Return all violations, closed and annulled ones included."""
    return ViolationQuerySet(Violation)


def current_profile() -> Profile:
    """Return the profile in force: the newest version, or `DEFAULT_PROFILE` if there is none."""
    row = ScoringProfile.objects.order_by("-version").first()
    return Profile.from_dict(row.document) if row else DEFAULT_PROFILE


def profile_of_version(version: int) -> Profile:
    """Return that version of the profile, or `DEFAULT_PROFILE` if no row has the version."""
    row = ScoringProfile.objects.filter(version=version).first()
    return Profile.from_dict(row.document) if row else DEFAULT_PROFILE


def entered_inputs(agents: Collection[str]) -> dict[str, tuple[int, ScoreInputs]]:
    """Return by agent the newest entry of the log with its score inputs, as index and inputs.

    Agents without such an entry are left out. Two queries.
    """
    first = known.first()
    entered = Entry.objects.filter(
        kind=Kind.SCORE_CHANGED, subject=OuterRef("pk"), position__gte=first
    )
    newest = Subquery(entered.order_by("-position").values("position")[:1])
    rows = Agent.objects.filter(pk__in=agents).order_by().annotate(entry=newest)
    places = {entry: agent for agent, entry in rows.values_list("pk", "entry") if entry is not None}
    bodies = EntryBody.objects.filter(pk__in=places, shared__isnull=False)
    return {
        places[body.entry_id]: (
            body.entry_id - first,
            ScoreInputs.from_dict(body.read()["inputs"]),
        )
        for body in bodies
    }


def thresholds_in_use() -> frozenset[float]:
    """Return the scores (0 to 100) with which policies in force or agents compare a score."""
    minimums = Agent.objects.exclude(minimum_score=0).values_list("minimum_score", flat=True)
    return score_thresholds() | frozenset(minimums.distinct())


def recompute_stored(row: Score) -> TrustScore:
    """Compute a stored score again from its stored inputs and the profile of that time.

    Raises `MalformedDocument` if this version of the code can't compute the row.
    """
    profile = ScoringProfile.objects.filter(version=row.profile_version).first()
    return scoring.recompute(
        {
            "inputs": row.inputs,
            "now": row.computed_at.timestamp(),
            "profile": profile.document if profile else DEFAULT_PROFILE.to_dict(),
            "algorithm": row.algorithm_version,
        }
    )
