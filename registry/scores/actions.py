"""Every write of scores and of their inputs: violations, conduct, good traffic, the profile."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, Max, Sum

from atp.judging.scoring import ALGORITHM_VERSION, Profile, TrustScore, score
from registry.agents.models import Agent, AgentKey
from registry.agents.querysets import organisations_of
from registry.change import ChangedMeanwhile, registry_change
from registry.officers.actor import Actor
from registry.officers.reason import check_reason
from registry.scores.events import enqueue_recompute_on_commit, enqueue_refresh_on_commit
from registry.scores.inputs import inputs_of
from registry.scores.models import Conduct, GoodTraffic, Score, ScoringProfile, Violation
from registry.scores.querysets import current_profile, scores, thresholds_in_use
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

__all__ = [
    "PERIODIC",
    "ViolationAnnulled",
    "ViolationClosed",
    "add_good_traffic",
    "annul_violation",
    "close_violation",
    "discount_traffic",
    "forget_old_traffic",
    "inputs_of",
    "note_signatures",
    "recompute",
    "record_violations",
    "restate",
    "save_profile",
]

PERIODIC = "periodic"  # the one cause that is not an event: only a changed total gets a row
SIGNATURES_MAX = 100  # remembered of each agent; docs/design/trust.md#the-score
TRAFFIC_DAYS = 90  # for which a good envelope counts; docs/design/trust.md#the-score
TRAFFIC_PER_DAY = 10  # envelopes that count for one counterparty; docs/design/trust.md#the-score
VIOLATIONS_PER_DAY = 20  # stored of one agent, rule and severity; 20 low ones cost all points
RULE_MAX_CHARS = 160  # length of the column
DESCENDANTS_MAX = 8  # generations of spawned agents whose scores depend on one agent's

# One statement slides all windows: a window that stays the same is not written again.
_SLIDE = """
INSERT INTO registry_conduct (agent_id, signatures, good_envelopes) VALUES {rows}
ON CONFLICT (agent_id) DO UPDATE SET signatures = {newest}
WHERE registry_conduct.signatures <> {newest}
"""
_WINDOW = "registry_conduct.signatures || excluded.signatures"
_NEWEST = (
    f"substr({_WINDOW}, CASE WHEN length({_WINDOW}) > {SIGNATURES_MAX}"
    f" THEN length({_WINDOW}) - {SIGNATURES_MAX} + 1 ELSE 1 END)"
)


class ViolationClosed(Exception):
    """Another officer has closed the violation already."""


class ViolationAnnulled(Exception):
    """Another officer has annulled the violation already."""


def recompute(agent_ids: Collection[str], because: str, *, now: float | None = None) -> int:
    """Compute these agents' scores and store what changed; how many rows that were.

    `because` names the event, such as `attestation.issued`. Each agent then gets a row; with
    `PERIODIC` only those whose total changed. `now` is in seconds since 1970. Inside another
    action use `restate`, because `recompute` appends its own entries.
    """
    with registry_change(Actor.hub(), moves_epoch=False) as change:
        drafts, stored = _restate(agent_ids, because, time.time() if now is None else now)
        change.enter(*drafts)
    return stored


def restate(
    agent_ids: Collection[str], because: str, *, now: float | None = None
) -> list[EntryDraft]:
    """Compute and store scores like `recompute`; return the entries for the caller to append."""
    return _restate(agent_ids, because, time.time() if now is None else now)[0]


def record_violations(rows: Sequence[tuple[str, str, str, str]], now: datetime) -> None:
    """Store violations, given as (agent, severity, rule, message id), and dispatch new scores.

    At most `VIOLATIONS_PER_DAY` of one agent, rule and severity are stored in 24 hours: more
    could not lower the score further. Unknown agents are left out. The trail holds every denial.
    """
    agents = {agent for agent, *_ in rows}
    organisations = dict(Agent.objects.filter(id__in=agents).values_list("id", "organisation_id"))
    noted = _noted_today(agents, now)
    fresh = []
    for agent, severity, rule, message_id in rows:
        rule = rule[:RULE_MAX_CHARS]
        noted[agent, severity, rule] += 1
        if agent in organisations and noted[agent, severity, rule] <= VIOLATIONS_PER_DAY:
            fresh.append(
                Violation(
                    agent_id=agent,
                    organisation_id=organisations[agent],
                    severity=severity,
                    rule=rule,
                    message_id=message_id,
                    at=now,
                )
            )
    Violation.objects.bulk_create(fresh)
    enqueue_recompute_on_commit({row.agent_id for row in fresh}, Kind.VIOLATION_RECORDED)


def close_violation(violation_id: int, *, actor: Actor, reason: str) -> None:
    """Close a violation: a critical one no longer limits the score to its ceiling.

    Raises `ViolationClosed` if it is closed already or does not exist, and `MalformedDocument` if
    the reason is empty or too long.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        now = datetime.now(UTC)
        changed = Violation.objects.filter(pk=violation_id, closed_at=None).update(
            closed_at=now, closed_by_id=actor.user_id, closed_reason=reason
        )
        if not changed:
            raise ViolationClosed
        change.enter(*_dealt_with(violation_id, Kind.VIOLATION_CLOSED, actor, reason, now))


def annul_violation(violation_id: int, *, actor: Actor, reason: str) -> None:
    """Annul a violation that was a mistake: from now on it counts for no score and no ceiling.

    Its row and its entries stay. It is closed if it was open. Stored scores that it lowered stay
    as they are; the agent and its parent get new ones.

    Raises `ViolationAnnulled` if it is annulled already or does not exist, and `MalformedDocument`
    if the reason is empty or too long.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        now = datetime.now(UTC)
        mine = Violation.objects.filter(pk=violation_id, annulled_at=None)
        if not mine.update(annulled_at=now, annulled_by_id=actor.user_id, annulled_reason=reason):
            raise ViolationAnnulled
        Violation.objects.filter(pk=violation_id, closed_at=None).update(
            closed_at=now, closed_by_id=actor.user_id, closed_reason=reason
        )
        change.enter(*_dealt_with(violation_id, Kind.VIOLATION_ANNULLED, actor, reason, now))


def note_signatures(rows: Iterable[tuple[str, bool]]) -> None:
    """Add (agent, whether the signature verified), in order of arrival, to each agent's window.

    A window holds the last `SIGNATURES_MAX` results. A window that stays the same is not written.
    One statement writes all windows and locks their rows in sorted order, so two batches can't
    wait for each other. `rows` must not be empty.
    """
    fresh: dict[str, str] = {}
    for agent, good in rows:
        fresh[agent] = (fresh.get(agent, "") + ("1" if good else "0"))[-SIGNATURES_MAX:]
    places = ", ".join(["(%s, %s, 0)"] * len(fresh))
    parameters = [value for pair in sorted(fresh.items()) for value in pair]
    with connection.cursor() as cursor:
        cursor.execute(_SLIDE.format(rows=places, newest=_NEWEST), parameters)


def add_good_traffic(rows: Iterable[tuple[str, str, date, int]]) -> None:
    """Count good envelopes, given as (agent, counterparty, day, number of envelopes).

    An envelope is good if it was accepted from the agent and acknowledged. At most 10 a day and
    counterparty count. Envelopes within one organisation do not count, nor those of days on which
    a key of the agent was compromised.
    """
    counted: Counter[tuple[str, str, date]] = Counter()
    for agent, counterparty, day, n in rows:
        counted[agent, counterparty, day] += n
    counted = _creditable(counted)
    if not counted:
        return
    agents = {agent for agent, _, _ in counted}
    with transaction.atomic(savepoint=False):
        _ensure_conduct(agents)
        # This lock makes counting transactions wait for each other: each sum must see all rows.
        list(Conduct.objects.select_for_update().filter(agent_id__in=agents).order_by("agent_id"))
        known = {
            (row.agent_id, row.counterparty, row.day): row.count
            for row in GoodTraffic.objects.filter(
                agent_id__in=agents,
                counterparty__in={counterparty for _, counterparty, _ in counted},
                day__in={day for _, _, day in counted},
            )
        }
        _upsert_traffic(
            {key: min(TRAFFIC_PER_DAY, known.get(key, 0) + n) for key, n in counted.items()}
        )
        _sum_traffic(agents, max(day for _, _, day in counted))


def discount_traffic(agent_id: str, since: datetime) -> None:
    """Delete the agent's good traffic since then, because another party may have signed it.

    Call it inside a transaction that has locked the agent and has set `compromised_since` on the
    agent's keys. `add_good_traffic` reads that column, so later counts leave those days out too.
    """
    _ensure_conduct([agent_id])
    list(Conduct.objects.select_for_update().filter(agent_id=agent_id))
    GoodTraffic.objects.filter(agent_id=agent_id, day__gte=since.astimezone(UTC).date()).delete()
    _sum_traffic([agent_id], datetime.now(UTC).date())


def forget_old_traffic(agent_ids: Collection[str], today: date) -> None:
    """Delete these agents' good traffic that is older than `TRAFFIC_DAYS`, and sum up the rest."""
    with transaction.atomic():
        GoodTraffic.objects.filter(
            agent_id__in=agent_ids, day__lte=today - timedelta(days=TRAFFIC_DAYS)
        ).delete()
        _sum_traffic(agent_ids, today)


def save_profile(
    values: Mapping[str, Any], *, actor: Actor, reason: str, expected_version: int | None = None
) -> Profile:
    """Save the profile in force, with `values` changed, as the next version; recompute all scores.

    Raises `MalformedDocument` if the numbers contradict each other, and `ChangedMeanwhile` if
    `expected_version` is no longer the version in force.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        before = current_profile()
        if expected_version not in (None, before.version):
            raise ChangedMeanwhile("Another officer changed the profile; open this page again.")
        last = ScoringProfile.objects.aggregate(last=Max("version"))["last"] or 0
        profile = Profile.from_dict({**before.to_dict(), **values, "version": last + 1})
        ScoringProfile.objects.create(
            version=profile.version,
            document=profile.to_dict(),
            reason=reason,
            created_by_id=actor.user_id,
        )
        enqueue_refresh_on_commit(Kind.PROFILE_CHANGED)
        body = {"before": before.to_dict(), "after": profile.to_dict(), "reason": reason}
        subject = f"scoring profile v{profile.version}"
        changed = EntryDraft(
            kind=Kind.PROFILE_CHANGED, actor=actor.name, subject=subject, shared=body
        )
        change.enter(changed)
    return profile


def _dealt_with(
    violation_id: int, kind: Kind, actor: Actor, reason: str, now: datetime
) -> list[EntryDraft]:
    """Return the entry about a violation, and those of the scores that it moves."""
    row = Violation.objects.select_related("agent__organisation").get(pk=violation_id)
    entry = EntryDraft(
        kind=kind,
        actor=actor.name,
        subject=row.agent_id,
        message_id=row.message_id,
        rule=row.rule,
        organisations=(row.agent.organisation.uid,),
        shared={"violation": row.pk, "severity": row.severity, "reason": reason},
    )
    family = [row.agent_id, *filter(None, [row.agent.parent_id])]
    return [entry, *restate(family, kind, now=now.timestamp())]


def _restate(agent_ids: Collection[str], because: str, now: float) -> tuple[list[EntryDraft], int]:
    moment = math.floor(now)  # whole seconds, as stored, so the stored row gives the same score
    ids = _with_descendants(agent_ids)
    profile = current_profile()
    results = {
        agent_id: score(inputs, moment, profile)
        for agent_id, inputs in inputs_of(ids, moment, profile=profile).items()
    }
    before = dict(scores().about(ids).newest().values_list("agent_id", "total"))
    named = because != PERIODIC
    moved = {
        agent_id: result
        for agent_id, result in results.items()
        if (named and agent_id in agent_ids) or before.get(agent_id) != result.total
    }
    rows = [_score_row(agent_id, result, because) for agent_id, result in sorted(moved.items())]
    Score.objects.bulk_create(rows)
    drafts = _drafts(rows, before, named=named)
    return drafts, len(rows)


def _with_descendants(agent_ids: Collection[str]) -> set[str]:
    """Return these agents and all agents spawned below them: a parent's score is their ceiling."""
    found = set(agent_ids)
    generation = found
    for _ in range(DESCENDANTS_MAX):
        children = Agent.objects.filter(parent_id__in=generation).values_list("id", flat=True)
        generation = set(children) - found
        if not generation:
            break
        found |= generation
    return found


def _score_row(agent_id: str, result: TrustScore, because: str) -> Score:
    return Score(
        agent_id=agent_id,
        total=result.total,
        components=dict(result.components),
        ceilings=[list(ceiling) for ceiling in result.ceilings],
        reasons=list(result.reasons),
        inputs=result.inputs.to_dict(),
        profile_version=result.profile.version,
        algorithm_version=ALGORITHM_VERSION,
        because=because,
        computed_at=datetime.fromtimestamp(result.now, UTC),
    )


def _drafts(rows: Sequence[Score], before: Mapping[str, int], *, named: bool) -> list[EntryDraft]:
    """Return an entry for each score that an event moved, or that crossed a threshold in use."""
    moved = [row for row in rows if before.get(row.agent_id) != row.total]
    thresholds = thresholds_in_use() if moved and not named else frozenset()
    organisations = organisations_of([row.agent_id for row in moved])
    drafts = []
    for row in moved:
        old = before.get(row.agent_id)
        low, high = sorted((old or 0, row.total))
        crossed = sorted(t for t in thresholds if low < t <= high)
        if named or crossed:
            drafts.append(_draft(row, old, crossed, organisations[row.agent_id]))
    return drafts


def _draft(row: Score, old: int | None, crossed: list[float], organisation: str) -> EntryDraft:
    return EntryDraft(
        kind=Kind.SCORE_CHANGED,
        actor=Actor.hub().name,
        subject=row.agent_id,
        score=row.total,
        organisations=(organisation,),
        shared={
            "before": old,
            "after": row.total,
            "because": row.because,
            "crossed": crossed,
            "components": row.components,
            "ceilings": row.ceilings,
            "inputs": row.inputs,
            "computedAt": int(row.computed_at.timestamp()),
            "profile": row.profile_version,
            "algorithm": row.algorithm_version,
        },
    )


def _noted_today(agents: Collection[str], now: datetime) -> Counter[tuple[str, str, str]]:
    """Count what is stored of a day. An annulled violation makes room for one that counts."""
    recent = Violation.objects.filter(agent_id__in=agents, at__gt=now - timedelta(days=1))
    rows = recent.filter(annulled_at=None)
    counts = rows.order_by().values_list("agent_id", "severity", "rule").annotate(n=Count("id"))
    return Counter({(agent, severity, rule): n for agent, severity, rule, n in counts})


def _ensure_conduct(agents: Collection[str]) -> None:
    Conduct.objects.bulk_create(
        [Conduct(agent_id=agent) for agent in sorted(agents)], ignore_conflicts=True
    )


def _creditable(
    counted: Counter[tuple[str, str, date]],
) -> Counter[tuple[str, str, date]]:
    ids = {agent for agent, _, _ in counted} | {other for _, other, _ in counted}
    organisations = dict(Agent.objects.filter(id__in=ids).values_list("id", "organisation_id"))
    doubtful = _doubtful_days({agent for agent, _, _ in counted})
    kept: Counter[tuple[str, str, date]] = Counter()
    for (agent_id, other_id, day), n in counted.items():
        if agent_id not in organisations or other_id not in organisations or n < 1:
            continue
        sound = not any(first <= day <= last for first, last in doubtful[agent_id])
        if sound and organisations[agent_id] != organisations[other_id]:
            kept[agent_id, other_id, day] = n
    return kept


def _doubtful_days(agents: Collection[str]) -> Mapping[str, list[tuple[date, date]]]:
    """Return by agent the periods (first day, last day) in which a key of it was compromised."""
    found: dict[str, list[tuple[date, date]]] = defaultdict(list)
    keys = AgentKey.objects.filter(agent_id__in=agents, compromised_since__isnull=False)
    for agent, since, ended in keys.values_list("agent_id", "compromised_since", "ended_at"):
        assert since is not None  # the filter leaves out rows without it
        last = ended or datetime.now(UTC)
        found[agent].append((since.astimezone(UTC).date(), last.astimezone(UTC).date()))
    return found


def _upsert_traffic(counts: Mapping[tuple[str, str, date], int]) -> None:
    GoodTraffic.objects.bulk_create(
        [
            GoodTraffic(agent_id=agent, counterparty=counterparty, day=day, count=count)
            for (agent, counterparty, day), count in sorted(counts.items())
        ],
        update_conflicts=True,
        unique_fields=["agent", "counterparty", "day"],
        update_fields=["count"],
    )


def _sum_traffic(agents: Collection[str], today: date) -> None:
    """Set the agents' totals to the sums of their rows; call it inside a transaction."""
    recent = GoodTraffic.objects.filter(
        agent_id__in=agents, day__gt=today - timedelta(days=TRAFFIC_DAYS)
    )
    sums = dict(recent.order_by().values_list("agent_id").annotate(n=Sum("count")))
    changed = []
    for row in Conduct.objects.filter(agent_id__in=agents).order_by("agent_id"):
        if row.good_envelopes != sums.get(row.agent_id, 0):
            row.good_envelopes = sums.get(row.agent_id, 0)
            changed.append(row)
    Conduct.objects.bulk_update(changed, ["good_envelopes"])
