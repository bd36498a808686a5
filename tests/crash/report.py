"""Report a run: a table for people, and a line of JSON to compare runs."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.crash.log import AgentLog, Kind
from tests.crash.recovery import HEALED_SECONDS
from tests.crash.run import Outcome

MOST_VIOLATIONS = 40  # that are printed; all are counted


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return the figures of a run for JSON; times in seconds."""
    logs = outcome.logs
    receipts = Counter(e.status for log in logs for e in log.of(Kind.RECEIPT))
    delivered = [(log.agent, e.peer, e.message) for log in logs for e in log.of(Kind.DELIVERY)]
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
        "handlers": _handlers(logs),
        "refused": dict(outcome.refused),
        "connections": sum(1 for log in logs for _ in log.of(Kind.OPENED)),
        "not_made": list(outcome.not_made),
        "recovery": {fault: round(seconds, 2) for fault, seconds in outcome.healing.items()},
        "load": [round(os.getloadavg()[1], 1), os.cpu_count()],  # of the last five minutes
        "settle_seconds": round(outcome.settle_seconds, 1),
        "violations": dict(Counter(violation.rule for violation in outcome.violations)),
    }


def table(outcome: Outcome) -> str:
    """Return the figures as text for people, with the first violations."""
    figures = summary(outcome)
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
        ("handlers, by their end", _counts(figures["handlers"])),
        ("dead letters", _counts(figures["refused"])),
        *(("faults that could not be made", why) for why in figures["not_made"]),
        ("quiet until nothing was left to do", f"{figures['settle_seconds']} s"),
        ("load of the machine, processors", "{:.1f}, {}".format(*figures["load"])),
        ("violations", _counts(figures["violations"]) or "none"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    lines += _faults(figures["blows"], figures["recovery"])
    shown = outcome.violations[:MOST_VIOLATIONS]
    if shown:
        lines += ["", f"  {len(outcome.violations)} violations, of them:"]
        lines += [f"    {violation}" for violation in shown]
    return "\n".join(lines)


def _faults(times: Mapping[str, int], healing: Mapping[str, float]) -> Iterator[str]:
    """Yield a line for each fault: how often it was made, and how long the hub took to heal."""
    if times:
        yield ""
        yield f"  {'fault':<20} {'times':>6} {'longest from its end until accepted, s':>40}"
    for fault, count in sorted(times.items()):
        seconds = healing.get(fault, math.nan)
        mark = f"  over {HEALED_SECONDS:g} s" if seconds > HEALED_SECONDS else ""
        yield f"  {fault:<20} {count:>6} {seconds:>40.1f}{mark}"


def _handlers(logs: Iterable[AgentLog]) -> dict[str, int]:
    """Return the handlers by their end; those without one were cut by the end of their process."""
    ended = Counter(e.status for log in logs for e in log.of(Kind.HANDLED))
    tried = sum(1 for log in logs for _ in log.of(Kind.TRIED))
    return {**ended, "killed": tried - ended.total()}


def _counts(counts: dict[str, int]) -> str:
    pairs = sorted(counts.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{count} {name}" for name, count in pairs)
