"""Reads of scores, violations and the scoring profile in force."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import models
from django.db.models import Max, Q

from atp.judging import scoring
from atp.judging.scoring import DEFAULT_PROFILE, Profile, TrustScore
from registry.agents.models import Agent
from registry.policies.querysets import score_thresholds
from registry.scores.models import Score, ScoringProfile, Violation


class ScoreQuerySet(models.QuerySet[Score]):
    def newest(self) -> ScoreQuerySet:
        """The current score of each agent."""
        ids = self.order_by().values("agent").annotate(newest=Max("id")).values("newest")
        return self.filter(id__in=ids)

    def about(self, agents: Collection[str]) -> ScoreQuerySet:
        return self.filter(agent_id__in=agents)


class ViolationQuerySet(models.QuerySet[Violation]):
    def weighing_at(self, now: datetime, *, memory: timedelta) -> ViolationQuerySet:
        """Those young enough to cost points, and critical ones that officers have yet to close."""
        open_critical = Q(closed_at=None, severity="critical")
        return self.filter(Q(at__gt=now - memory) | open_critical)

    def concerning(
        self, *, agents: Collection[str], organisations: Collection[int]
    ) -> ViolationQuerySet:
        """Those of these agents, of agents that they spawned, and of these organisations."""
        return self.filter(
            Q(agent_id__in=agents)
            | Q(agent__parent_id__in=agents)
            | Q(organisation_id__in=organisations)
        )


def scores() -> ScoreQuerySet:
    """All stored scores."""
    return ScoreQuerySet(Score)


def violations() -> ViolationQuerySet:
    """All violations, closed ones included."""
    return ViolationQuerySet(Violation)


def current_profile() -> Profile:
    """The profile in force: the newest one, or the one that the protocol comes with."""
    row = ScoringProfile.objects.order_by("-version").first()
    return Profile.from_dict(row.document) if row else DEFAULT_PROFILE


def profile_of_version(version: int) -> Profile:
    """The profile of that version, or the one that the protocol comes with."""
    row = ScoringProfile.objects.filter(version=version).first()
    return Profile.from_dict(row.document) if row else DEFAULT_PROFILE


def thresholds_in_use() -> frozenset[float]:
    """The scores that a policy in force or an agent compares with."""
    minimums = Agent.objects.exclude(minimum_score=0).values_list("minimum_score", flat=True)
    return score_thresholds() | frozenset(minimums.distinct())


def recompute_stored(row: Score) -> TrustScore:
    """A stored score, computed again from its own inputs by the profile of its time.

    Raises `MalformedDocument` when the row can't be computed any more.
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
