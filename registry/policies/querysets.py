"""Reads of policies: their versions, and the set in force as the hub evaluates it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Max

from atp.judging.policy import PolicySet, compile_policies
from atp.wire.json_values import is_number
from registry.policies.models import PolicyVersion

SCORE_FIELDS = frozenset({"sender.score", "recipient.score", "chain.lowest_score"})


class PolicyVersionQuerySet(models.QuerySet[PolicyVersion]):
    """Filters for versions of policies."""

    def newest(self, *, at: datetime | None = None) -> PolicyVersionQuerySet:
        """Return the newest version of each policy, now or at the time `at`."""
        candidates = self if at is None else self.filter(created_at__lte=at)
        ids = candidates.order_by().values("policy").annotate(newest=Max("id")).values("newest")
        return self.filter(id__in=ids)

    def in_force(self) -> PolicyVersionQuerySet:
        """Return versions whose mode is not off, ordered by policy."""
        return self.exclude(document__mode="off").order_by("policy_id")


def versions() -> PolicyVersionQuerySet:
    """Return all versions of all policies."""
    return PolicyVersionQuerySet(PolicyVersion)


class CompiledPolicies:
    """The policies that this process compiled last, by the digests of their versions."""

    def __init__(self) -> None:
        self._compiled: tuple[tuple[str, ...], PolicySet] | None = None

    def current(self) -> PolicySet:
        """Return the compiled policies in force; one query.

        A process compiles them again only after a version has changed. If there is no policy, the
        set denies everything.
        """
        rows = list(versions().newest().in_force().values_list("digest", "document"))
        digests = tuple(digest for digest, _ in rows)
        known = self._compiled  # threads replace the whole pair, so no lock is needed
        if known is not None and known[0] == digests:
            return known[1]
        policy_set = compile_policies([document for _, document in rows])
        self._compiled = (digests, policy_set)
        return policy_set


current_policy_set = CompiledPolicies().current


def policy_set_at(moment: datetime) -> PolicySet:
    """Return the compiled policies that were in force at `moment`."""
    rows = versions().newest(at=moment).in_force()
    return compile_policies(list(rows.values_list("document", flat=True)))


def score_thresholds() -> frozenset[float]:
    """Return the scores (0 to 100) with which rules in force compare a score."""
    documents = versions().newest().in_force().values_list("document", flat=True)
    return frozenset(_scores_compared(documents))


def _scores_compared(documents: Iterable[Mapping[str, Any]]) -> Iterable[float]:
    for document in documents:
        for rule in document["rules"]:
            for condition in rule.get("conditions", ()):
                if condition["field"] in SCORE_FIELDS:
                    yield from _numbers(condition.get("value"))


def _numbers(value: Any) -> Iterable[float]:
    for one in value if isinstance(value, list) else [value]:
        if is_number(one):
            yield one
