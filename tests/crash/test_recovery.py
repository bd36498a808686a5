"""The report's figure: how long after a fault's end something was accepted again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tests.crash.blows import Blow
from tests.crash.ledger import Ledger, StoredEntry
from tests.crash.log import AgentLog, Event, Kind
from tests.crash.recovery import Acceptances, healing_seconds


def accepted(*moments: float, heard_after: float = 0.0) -> Acceptances:
    """Envelopes that were accepted at these moments, and whose senders heard so."""
    entries = [
        StoredEntry(n, "envelope.accepted", "alice", "bob", f"m{n}", "accepted", "", True, at=at)
        for n, at in enumerate(moments)
    ]
    receipts = [
        Event(Kind.RECEIPT, e.at + heard_after, 1, e.message, status="accepted", entry=e.index)
        for e in entries
    ]
    return Acceptances([AgentLog("alice", tuple(receipts))], Ledger(entries=entries))


def fault(at: float, until: float, name: str = "mute broker", *, alone: bool = False) -> Blow:
    return Blow(at, name, "", until - at, alone)


CASES: list[tuple[Sequence[Blow], Sequence[float], float]] = [
    ([fault(10, 12)], [5, 11, 20], 8.0),  # not from its begin, nor what was accepted meanwhile
    ([fault(10, 12)], [11.9], math.inf),
    ([fault(10, 12), fault(11, 18, "pause node")], [20], 2.0),  # that one kept it away too
    ([fault(10, 12), fault(11, 30, "pause node")], [20], 8.0),  # that one did not
    ([fault(10, 12), fault(14, 19, "kill redis")], [20], 1.0),
    ([fault(10, 12, alone=True), fault(14, 19, "kill beat")], [20], 8.0),  # it had its time
    ([fault(10, 12), fault(30, 33)], [20, 50], 17.0),  # the longest of its kind
]


@pytest.mark.parametrize(("blows", "moments", "seconds"), CASES)
def test_it_counts_from_the_end_of_what_kept_the_hub_from_work(
    blows: Sequence[Blow], moments: Sequence[float], seconds: float
) -> None:
    assert healing_seconds(blows, accepted(*moments))["mute broker"] == seconds


def test_it_counts_until_a_sender_hears_of_it() -> None:
    told = accepted(11, 13, heard_after=5)
    assert healing_seconds([fault(10, 12)], told) == {"mute broker": 6.0}


def test_it_passes_over_receipts_that_are_told_again() -> None:
    """Of what was decided before the fault ended, however late its sender hears of it."""
    told = accepted(9, heard_after=10)
    assert healing_seconds([fault(10, 12)], told) == {"mute broker": math.inf}
