"""Report a run: a table for people, and a line of JSON to compare runs."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from tests.crash.log import AgentLog, Kind
from tests.crash.nemesis import Blow
from tests.crash.run import Outcome

MOST_VIOLATIONS = 40  # that are printed; all are counted


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return the figures of a run for JSON; times in seconds."""
    logs = outcome.logs
    receipts = Counter(e.status for log in logs for e in log.of(Kind.RECEIPT))
    delivered = [(log.agent, e.peer, e.message) for log in logs for e in log.of(Kind.DELIVERY)]
    recovery = recovery_seconds(logs, outcome.blows)
    return {
        "seed": outcome.plan.seed,
        "seconds": outcome.plan.seconds,
        "mutant": outcome.plan.mutant,
        "agents": len(logs),
        "blows": dict(Counter(blow.fault for blow in outcome.blows)),
        "deaths": dict(outcome.deaths),
        "failpoints": dict(outcome.failpoints),
        "sent": len({(log.agent, e.message) for log in logs for e in log.of(Kind.SENT)}),
        "sendings": sum(1 for log in logs for _ in log.of(Kind.SENT)),
        "receipts": dict(receipts),
        "outcomes": dict(Counter(e.status for log in logs for e in log.of(Kind.OUTCOME))),
        "deliveries": len(delivered),
        "repeats": len(delivered) - len(set(delivered)),
        "handled": sum(1 for log in logs for _ in log.of(Kind.HANDLED)),
        "unhandled": _unhandled(logs),
        "connections": sum(1 for log in logs for _ in log.of(Kind.OPENED)),
        "recovery": {fault: round(seconds, 2) for fault, seconds in recovery.items()},
        "settle_seconds": round(outcome.settle_seconds, 1),
        "violations": dict(Counter(violation.rule for violation in outcome.violations)),
    }


def table(outcome: Outcome) -> str:
    """Return the figures as text for people, with the first violations."""
    figures = summary(outcome)
    slowest = max(figures["recovery"].values(), default=0.0)
    rows = [
        ("seed", figures["seed"]),
        ("faults", f"{len(outcome.blows)} in {outcome.plan.seconds:g} s"),
        ("processes that ended by themselves", _counts(figures["deaths"])),
        ("failpoints that ended one", _counts(figures["failpoints"])),
        ("agents", f"{figures['agents']}, connected {figures['connections']} times"),
        ("envelopes sent", f"{figures['sent']}, in {figures['sendings']} sendings"),
        ("receipts", _counts(figures["receipts"])),
        ("what senders were told", _counts(figures["outcomes"])),
        ("deliveries", figures["deliveries"]),
        ("repeats among them", figures["repeats"]),
        ("handled", figures["handled"]),
        ("taken by a process that ended before handling it", figures["unhandled"]),
        ("longest until something new was accepted", f"{slowest:.1f} s"),
        ("quiet until nothing was left to do", f"{figures['settle_seconds']} s"),
        ("violations", _counts(figures["violations"]) or "none"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    if figures["blows"]:
        lines += ["", f"  {'fault':<20} {'times':>6} {'longest until accepted again, s':>33}"]
    for fault, times in sorted(figures["blows"].items()):
        lines.append(f"  {fault:<20} {times:>6} {figures['recovery'].get(fault, math.nan):>33.1f}")
    shown = outcome.violations[:MOST_VIOLATIONS]
    if shown:
        lines += ["", f"  {len(outcome.violations)} violations, of them:"]
        lines += [f"    {violation}" for violation in shown]
    return "\n".join(lines)


def recovery_seconds(logs: Sequence[AgentLog], blows: Iterable[Blow]) -> dict[str, float]:
    """Return by fault the longest time, in seconds, until the receipt of a later envelope."""
    first_sent: dict[tuple[str, str], float] = {}
    accepted: list[tuple[float, float]] = []
    for log in logs:
        for event in log.of(Kind.SENT, Kind.RECEIPT):
            key = (log.agent, event.message)
            if event.kind is Kind.SENT:
                first_sent.setdefault(key, event.at)
            elif event.status == "accepted" and key in first_sent:
                accepted.append((first_sent[key], event.at))
    accepted.sort()
    moments = [sent for sent, _ in accepted]
    soonest = list(accumulate((at for _, at in reversed(accepted)), min))[::-1]
    longest: dict[str, float] = defaultdict(float)
    for blow in blows:
        index = bisect_left(moments, blow.at)
        took = soonest[index] - blow.at if index < len(soonest) else math.inf
        longest[blow.fault] = max(longest[blow.fault], took)
    return dict(longest)


def _unhandled(logs: Iterable[AgentLog]) -> int:
    """Return the messages without answer that reached a process of the recipient but no handler."""
    count = 0
    for log in logs:
        taken = {
            (e.peer, e.message)
            for e in log.of(Kind.DELIVERY)
            if e.type in ("notification", "broadcast")
        }
        count += len(taken - {(e.peer, e.message) for e in log.of(Kind.HANDLED)})
    return count


def _counts(counts: dict[str, int]) -> str:
    pairs = sorted(counts.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{count} {name}" for name, count in pairs)
