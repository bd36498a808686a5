"""The rules about handlers, on made-up logs of one agent."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.crash.handling import read_handlers, unhandled
from tests.crash.ledger import StoredDelivery
from tests.crash.log import AGAIN, CUT, DONE, FAILED, UNWANTED, AgentLog, Event, Kind

ALICE, BOB = "alice", "bob"

Log = Sequence[Event]


def began(run: int) -> Event:
    """A process of Bob's started."""
    return Event(Kind.BEGAN, 0.0, run)


def brought(place: int, *, at: float = 1.0) -> Event:
    return Event(Kind.DELIVERY, at, 1, f"m{place}", peer=ALICE, stream="mail", seq=place)


def tells(kind: Kind, place: int, *, at: float, last: int = 0) -> Event:
    """Bob tells the hub that a handler begins, that it is done, or how often it failed."""
    return Event(kind, at, 1, stream="mail", seq=place, last=last or place)


def tried(place: int, *, run: int = 1, attempt: int = 1, kind: str = "notification") -> Event:
    return Event(Kind.TRIED, 2.0, run, f"m{place}", peer=ALICE, type=kind, seq=attempt)


def ended(place: int, status: str = DONE, *, run: int = 1, kind: str = "notification") -> Event:
    return Event(Kind.HANDLED, 3.0, run, f"m{place}", peer=ALICE, type=kind, status=status)


def row(place: int, state: str = "waiting", code: str = "", failures: int = 0) -> StoredDelivery:
    return StoredDelivery(BOB, "mail", place, ALICE, f"m{place}", state, code, failures)


def broken(log: Log, *rows: StoredDelivery, kind: str = "notification") -> set[str]:
    """The rules that are broken where Bob's log is this and the hub has these rows."""
    found = read_handlers([AgentLog(BOB, tuple(log))])
    sent = {
        (ALICE, one.message): Event(Kind.SENT, 0.0, 1, one.message, type=kind, expires=50.0)
        for one in rows
    }
    acks = [e for e in log if e.kind is Kind.ACK]
    done = {(BOB, "mail"): [(e.seq, e.last, e.at) for e in acks]}
    return {fault.rule for fault in (*found.faults, *unhandled(found, rows, sent, done))}


def test_it_passes_what_was_handled_once() -> None:
    assert broken([began(1), brought(1), tried(1), ended(1)], row(1)) == set()


def test_rejects_what_no_handler_ended_with() -> None:
    assert broken([began(1), brought(1)], row(1)) == {"handled"}
    assert broken([began(1), brought(1), tried(1)], row(1)) == {"handled"}
    assert broken([began(1), brought(1), tried(1), ended(1, CUT)], row(1)) == {"handled"}
    assert broken([began(1), brought(1), tried(1), ended(1, FAILED)], row(1)) == {"handled"}


def test_it_lets_what_expired_before_its_delivery_unhandled() -> None:
    assert broken([began(1)], row(1, "expired", "clock.expired")) == set()


def test_it_lets_a_request_unhandled_that_had_expired_and_no_other_message() -> None:
    late, early = tells(Kind.ACK, 1, at=51.0), tells(Kind.ACK, 1, at=40.0)
    assert broken([began(1), brought(1), late], row(1), kind="request") == set()
    assert broken([began(1), brought(1), early], row(1), kind="request") == {"handled"}
    assert broken([began(1), brought(1), late], row(1)) == {"handled"}


def test_it_counts_a_failed_request_as_handled_because_its_caller_hears_so() -> None:
    log = [began(1), brought(1), tried(1, kind="request"), ended(1, FAILED, kind="request")]
    assert broken(log, row(1), kind="request") == set()


def test_it_lets_another_process_handle_it_again_and_the_same_one_not() -> None:
    once = [began(1), brought(1), tried(1), ended(1)]
    assert broken([*once, began(2), tried(1, run=2), ended(1, run=2)], row(1)) == set()
    assert broken([*once, tried(1), ended(1)], row(1)) == {"once"}


def test_it_lets_a_request_come_again_whose_answer_had_not_left() -> None:
    handled = [tried(1, kind="request"), ended(1, kind="request")]
    unanswered = [began(1), brought(1), *handled, Event(Kind.AWAY, 4.0, 1), *handled]
    assert broken(unanswered, row(1), kind="request") == set()
    answered = [began(1), brought(1), *handled, tells(Kind.ACK, 1, at=3.0), *handled]
    assert broken(answered, row(1), kind="request") == {"once"}


def test_rejects_two_handlers_with_one_message_at_once() -> None:
    assert "at once" in broken([began(1), brought(1), tried(1), tried(1), ended(1)], row(1))


def test_it_counts_failures_that_were_told_and_breaks_while_a_handler_ran() -> None:
    begun = [began(1), brought(1), tells(Kind.BEGUN, 1, at=2.0), tried(1)]
    failed = [*begun, ended(1, AGAIN), tells(Kind.FAILURES, 1, at=3.0, last=1)]
    again = [tried(1, attempt=2), ended(1)]
    assert broken([*failed, *again], row(1, failures=1)) == set()
    killed = [*begun, began(2), brought(1), tried(1, run=2, attempt=2), ended(1, run=2)]
    assert broken(killed, row(1, failures=1)) == set()
    cut_off = [*begun, Event(Kind.CLOSED, 2.5, 1), ended(1)]
    assert broken(cut_off, row(1, failures=1)) == set()


def test_rejects_failures_that_are_nobodys() -> None:
    handled = [began(1), brought(1), tells(Kind.BEGUN, 1, at=2.0), tried(1), ended(1)]
    told = tells(Kind.ACK, 1, at=3.0)
    assert broken([*handled, told], row(1, failures=1)) == {"attempts"}
    late = Event(Kind.CLOSED, 60.0, 1)  # the hub has long heard that it is done
    assert broken([*handled, told, late], row(1, failures=1)) == {"attempts"}
    soon = Event(Kind.CLOSED, 3.5, 1)  # perhaps it has not
    assert broken([*handled, told, soon], row(1, failures=1)) == set()
    unbegun = [began(1), brought(1), Event(Kind.CLOSED, 2.0, 1), brought(1), tried(1, attempt=2)]
    assert "attempts" in broken([*unbegun, ended(1)], row(1))


def test_rejects_another_handler_beside_one_that_was_tried_before() -> None:
    failed = [began(1), brought(1), tried(1), ended(1, AGAIN)]
    counted = [*failed, tells(Kind.FAILURES, 1, at=3.0, last=1)]
    beside = [brought(2), tried(2), tried(1, attempt=2), ended(1), ended(2)]
    assert broken([*counted, *beside], row(1, failures=1), row(2)) == {"alone"}
    joined = [brought(2), tried(1, attempt=2), tried(2), ended(1), ended(2)]
    assert broken([*counted, *joined], row(1, failures=1), row(2)) == {"alone"}
    after = [brought(2), tried(1, attempt=2), ended(1), tried(2), ended(2)]
    assert broken([*counted, *after], row(1, failures=1), row(2)) == set()


@pytest.mark.parametrize(("status", "code", "rules"), [
    (UNWANTED, UNWANTED, set()),
    (DONE, UNWANTED, {"handled"}),
    (AGAIN, "handler.failed", {"handled"}),
    (UNWANTED, "recipient.no_handler", {"handled"}),
])  # fmt: skip
def test_rejects_a_dead_letter_without_a_reason(status: str, code: str, rules: set[str]) -> None:
    log = [began(1), brought(1), tried(1), ended(1, status)]
    assert broken(log, row(1, "refused", code)) == rules


def test_it_passes_a_dead_letter_after_five_failures() -> None:
    log = [began(1), brought(1)]
    for failures in range(5):
        log += [tried(1, attempt=failures + 1), ended(1, FAILED)]
        if failures < 4:  # the last one is told as a refusal
            log.append(tells(Kind.FAILURES, 1, at=3.0, last=failures + 1))
    assert broken(log, row(1, "refused", "handler.failed", failures=4)) == set()
