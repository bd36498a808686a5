"""Recent traffic of senders: the rates that policies use, and the counts of throttle rules."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from django.db.models import Count, QuerySet

from atp.judging.policy import PolicySet
from atp.judging.policy.document import ParsedRule
from messaging.models import Envelope, RuleCounter

RATE_FIELDS = {
    "context.messages_per_minute": (timedelta(minutes=1), ("accepted", "denied")),
    "context.denials_per_hour": (timedelta(hours=1), ("denied",)),
}


def load_rates(
    policy_set: PolicySet, senders: Collection[str], now: float
) -> dict[str, dict[str, int]]:
    """The rates that these policies ask for, by sender and by field."""
    rates: dict[str, dict[str, int]] = {}
    moment = datetime.fromtimestamp(now, UTC)
    for name in RATE_FIELDS.keys() & policy_set.uses:
        period, statuses = RATE_FIELDS[name]
        counts = dict(judged_since(moment - period, senders, statuses))
        for sender in senders:
            rates.setdefault(sender, {})[name] = counts.get(sender, 0)
    return rates


def judged_since(
    since: datetime, senders: Collection[str], statuses: Collection[str]
) -> QuerySet[Envelope, tuple[str, int]]:
    """Return the number of each sender's envelopes with one of these verdicts since then."""
    rows = Envelope.objects.filter(
        sender_id__in=senders, judged_at__gt=since, status__in=statuses
    ).order_by()
    return rows.values_list("sender_id").annotate(n=Count("id"))


def load_rule_counts(
    policy_set: PolicySet, senders: Collection[str], now: float
) -> dict[str, dict[str, int]]:
    """Return the count of each throttle rule in its window, by sender and rule key."""
    windows = {rule.key: window_of(rule, now) for rule in policy_set.limits}
    found: dict[str, dict[str, int]] = {}
    if not windows:
        return found
    rows = RuleCounter.objects.filter(
        rule__in=windows, window__in=set(windows.values()), sender__in=senders
    )
    for rule, sender, window, count in rows.values_list("rule", "sender", "window", "count"):
        if windows[rule] == window:
            found.setdefault(sender, {})[rule] = count
    return found


def window_of(rule: ParsedRule, now: float) -> int:
    """The start of a throttle rule's current window, in epoch seconds."""
    assert rule.throttle is not None
    _, seconds = rule.throttle
    return int(now) // seconds * seconds
