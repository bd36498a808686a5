"""Reads of policies: what is in force, as officers see it and as the hub evaluates it."""

from __future__ import annotations

import threading
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
    def newest(self, *, at: datetime | None = None) -> PolicyVersionQuerySet:
        """The newest version of each policy, or the one that was newest `at` a moment."""
        candidates = self if at is None else self.filter(created_at__lte=at)
        ids = candidates.order_by().values("policy").annotate(newest=Max("id")).values("newest")
        return self.filter(id__in=ids)

    def in_force(self) -> PolicyVersionQuerySet:
        """Versions that are evaluated, in a stable order."""
        return self.exclude(document__mode="off").order_by("policy_id")


def versions() -> PolicyVersionQuerySet:
    """All versions of all policies."""
    return PolicyVersionQuerySet(PolicyVersion)


_lock = threading.Lock()
_compiled: tuple[tuple[str, ...], PolicySet] | None = None


def current_policy_set() -> PolicySet:
    """The policies in force now, compiled once for as long as no version changes.

    One query. No policy at all makes a set that denies everything.
    """
    global _compiled
    rows = list(versions().newest().in_force().values_list("digest", "document"))
    digests = tuple(digest for digest, _ in rows)
    with _lock:
        known = _compiled
    if known is not None and known[0] == digests:
        return known[1]
    policy_set = compile_policies([document for _, document in rows])
    with _lock:
        _compiled = (digests, policy_set)
    return policy_set


def policy_set_at(moment: datetime) -> PolicySet:
    """The policies that were in force at `moment`."""
    rows = versions().newest(at=moment).in_force()
    return compile_policies(list(rows.values_list("document", flat=True)))


def score_thresholds() -> frozenset[float]:
    """The scores that rules in force compare with."""
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
