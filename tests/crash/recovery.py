"""How long the hub took to accept something again after a fault's end. The module does no I/O."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from tests.crash.blows import Blow
from tests.crash.ledger import Ledger
from tests.crash.log import AgentLog, Kind

HEALED_SECONDS = 15.0  # a fault whose end is longer ago should not be felt any more


class Acceptances:
    """The envelopes that were accepted: when the trail says so, and when their senders heard."""

    def __init__(self, logs: Iterable[AgentLog], ledger: Ledger) -> None:
        decided = {entry.index: entry.at for entry in ledger.entries}
        both = sorted(
            (decided[event.entry], event.at)
            for log in logs
            for event in log.of(Kind.RECEIPT)
            if event.status == "accepted" and event.entry in decided
        )
        self._decided = [moment for moment, _ in both]
        self._told = list(accumulate((told for _, told in reversed(both)), min))[::-1]

    def first_after(self, moment: float) -> float:
        """Return when a sender first heard of an acceptance that was decided after `moment`."""
        index = bisect_left(self._decided, moment)
        return self._told[index] if index < len(self._told) else math.inf


def healing_seconds(blows: Sequence[Blow], acceptances: Acceptances) -> Mapping[str, float]:
    """Return by fault the longest time from its end until something was accepted, in seconds.

    Where another fault had begun before that end and lasted longer, the time counts from the end
    of that one: nothing can heal before. So it does where a fault was begun before the hub worked
    again, unless the nemesis waited for the hub.
    """
    longest: dict[str, float] = defaultdict(float)
    for blow in blows:
        end = blow.ends_at
        while (last := _end_of_others(blow, blows, end, acceptances.first_after(end))) > end:
            end = last
        longest[blow.fault] = max(longest[blow.fault], acceptances.first_after(end) - end)
    return longest


def _end_of_others(blow: Blow, blows: Iterable[Blow], end: float, accepted: float) -> float:
    """Return the last end, up to `accepted`, of the faults that kept this one from healing."""
    begun_until = end if blow.alone else accepted
    ends = (one.ends_at for one in blows if one.at <= begun_until)
    return max((moment for moment in ends if moment <= accepted), default=end)
