"""The checker on made-up runs: a sound one passes, and each fault shows under its promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.checker import check
from tests.crash.ledger import Ledger, StoredBox, StoredDelivery, StoredEntry, StoredEnvelope
from tests.crash.log import DONE, AgentLog, Event, Kind, LogWriter, read_log

Run = tuple[list[AgentLog], Ledger]

ALICE, BOB = "alice", "bob"


def sound_run() -> Run:
    """Alice tells Bob three things; he comes late, acknowledges, and both settle."""
    sent = [
        Event(Kind.SENT, 10.0 + n, 1, f"m{n}", f"d{n}", BOB, "notification", expires=100.0)
        for n in (1, 2, 3)
    ]
    receipts = [
        Event(Kind.RECEIPT, 20.0, 1, f"m{n}", status="accepted", entry=n - 1) for n in (1, 2, 3)
    ]
    alice = [Event(Kind.BEGAN, run=1), Event(Kind.OPENED, run=1), *sent, *receipts]
    brought = [
        Event(Kind.DELIVERY, 30.0, 2, f"m{n}", f"d{n}", ALICE, stream="mail", seq=n)
        for n in (1, 2, 3)
    ]
    handled = [
        event
        for n in (1, 2, 3)
        for event in (
            Event(Kind.TRIED, 30.0, 2, f"m{n}", peer=ALICE, type="notification", seq=1),
            Event(Kind.HANDLED, 30.0, 2, f"m{n}", peer=ALICE, type="notification", status=DONE),
        )
    ]
    ack = Event(Kind.ACK, 31.0, 2, stream="mail", seq=1, last=3)
    bob = [Event(Kind.BEGAN, run=2), Event(Kind.OPENED, run=2), *brought, *handled, ack]
    settled = Event(Kind.SETTLED, 40.0)
    entries = [
        StoredEntry(n - 1, "envelope.accepted", ALICE, BOB, f"m{n}", "accepted", "", sound=True)
        for n in (1, 2, 3)
    ]
    acknowledged = StoredEntry(
        3, "delivery.acknowledged", "", BOB, "", "", "mail 1-3", sound=True, ranges=((1, 3),)
    )
    ledger = Ledger(
        envelopes=[
            StoredEnvelope(ALICE, f"m{n}", f"d{n}", BOB, "accepted", 1, waiting=False)
            for n in (1, 2, 3)
        ],
        deliveries=[StoredDelivery(BOB, "mail", n, ALICE, f"m{n}", "waiting") for n in (1, 2, 3)],
        entries=[*entries, acknowledged],
        boxes=[StoredBox(BOB, "mail", 3, 3)],
    )
    return [AgentLog(ALICE, (*alice, settled)), AgentLog(BOB, (*bob, settled))], ledger


def log_without(run: Run, agent: str, *kinds: Kind, message: str = "") -> Run:
    """The run as if this agent had not written that."""

    def kept(event: Event) -> bool:
        return event.kind not in kinds or (message != "" and event.message != message)

    logs, ledger = run
    return [
        AgentLog(log.agent, tuple(e for e in log.events if log.agent != agent or kept(e)))
        for log in logs
    ], ledger


def log_changed(run: Run, agent: str, kind: Kind, message: str, **changes: object) -> Run:
    """The run with that event told otherwise."""
    logs, ledger = run
    return [
        AgentLog(
            log.agent,
            tuple(
                replace(e, **changes)  # type: ignore[arg-type]
                if (log.agent, e.kind, e.message) == (agent, kind, message)
                else e
                for e in log.events
            ),
        )
        for log in logs
    ], ledger


def repeated(run: Run, agent: str, kind: Kind, message: str) -> Run:
    """The run with that event once more."""
    logs, ledger = run
    return [
        AgentLog(
            log.agent,
            tuple(
                again
                for e in log.events
                for again in (
                    (e, e) if (log.agent, e.kind, e.message) == (agent, kind, message) else (e,)
                )
            ),
        )
        for log in logs
    ], ledger


def without_envelope(run: Run) -> Run:
    """The commit of the last envelope was lost: no row, no place, no entry."""
    logs, ledger = run
    acknowledged = replace(ledger.entries[3], index=2, ranges=((1, 2),))
    return logs, Ledger(
        ledger.envelopes[:2],
        ledger.deliveries[:2],
        [*ledger.entries[:2], acknowledged],
        [StoredBox(BOB, "mail", 2, 2)],
    )


def rows_swapped(run: Run) -> Run:
    """Two envelopes of Alice stand in Bob's stream the other way round, and came so."""
    logs, ledger = run
    first, second, third = ledger.deliveries
    swapped = [replace(first, message="m2"), replace(second, message="m1"), third]
    alice, bob = logs
    began, opened, m1, m2, *rest = bob.events
    events = (began, opened, replace(m2, seq=1), replace(m1, seq=2), *rest)
    return [alice, AgentLog(BOB, events)], replace(ledger, deliveries=swapped)


def entry_changed(run: Run, number: int, **changes: object) -> Run:
    logs, ledger = run
    entries = list(ledger.entries)
    entries[number] = replace(entries[number], **changes)  # type: ignore[arg-type]
    return logs, replace(ledger, entries=entries)


def box_moved(run: Run) -> Run:
    """The mailbox stands where Bob never acknowledged."""
    logs, ledger = log_changed(run, BOB, Kind.ACK, "", last=2)
    return logs, ledger


def range_ahead(run: Run) -> Run:
    """The mailbox has a range as done that Bob never told, and its entry too."""
    logs, ledger = log_changed(run, BOB, Kind.ACK, "", last=1)
    boxes = [replace(ledger.boxes[0], acknowledged=1, ahead=((3, 3),))]
    return entry_changed((logs, replace(ledger, boxes=boxes)), 3, ranges=((1, 1), (3, 3)))


FAULTS: list[tuple[set[str], Callable[[Run], Run]]] = [
    ({"settles"}, lambda r: log_without(r, ALICE, Kind.SETTLED)),
    ({"lost"}, without_envelope),
    ({"delivered", "gapless"}, lambda r: log_without(r, BOB, Kind.DELIVERY, message="m3")),
    ({"gapless"}, lambda r: log_without(r, BOB, Kind.DELIVERY, message="m2")),
    ({"delivered"}, lambda r: (r[0], replace(r[1], deliveries=r[1].deliveries[:2]))),
    ({"sent"}, lambda r: log_without(r, ALICE, Kind.SENT, message="m2")),
    ({"sent"}, lambda r: log_changed(r, BOB, Kind.DELIVERY, "m2", digest="other")),
    ({"sent"}, lambda r: log_changed(r, ALICE, Kind.SENT, "m2", peer="carol")),
    ({"lost"}, lambda r: log_changed(r, ALICE, Kind.SENT, "m2", digest="other")),
    ({"at once"}, lambda r: repeated(r, BOB, Kind.TRIED, "m1")),
    ({"handled"}, lambda r: log_without(r, BOB, Kind.HANDLED, message="m2")),
    ({"order"}, rows_swapped),
    ({"receipts"}, lambda r: log_changed(r, ALICE, Kind.RECEIPT, "m1", status="invalid")),
    ({"receipts"}, lambda r: log_changed(r, ALICE, Kind.RECEIPT, "m1", status="denied")),
    ({"trail"}, lambda r: log_changed(r, ALICE, Kind.RECEIPT, "m1", entry=2)),
    ({"trail"}, lambda r: entry_changed(r, 1, verdict="denied")),
    ({"trail"}, lambda r: entry_changed(r, 1, kind="envelope.denied")),
    ({"trail"}, lambda r: entry_changed(r, 3, index=4)),
    ({"trail"}, lambda r: entry_changed(r, 0, sound=False)),
    ({"acknowledged"}, lambda r: entry_changed(r, 3, ranges=((2, 3),))),
    ({"acknowledged"}, lambda r: entry_changed(r, 3, ranges=((1, 2), (2, 3)))),
    ({"acknowledged"}, box_moved),
    ({"acknowledged"}, range_ahead),
]


def test_it_passes_a_run_in_which_all_is_as_promised() -> None:
    assert check(*sound_run()) == []


@pytest.mark.parametrize(("rules", "fault"), FAULTS)
def test_rejects_each_fault_under_its_promise(rules: set[str], fault: Callable[[Run], Run]) -> None:
    found = {violation.rule for violation in check(*fault(sound_run()))}
    assert rules <= found


def test_it_lets_what_expired_be_gone_and_nothing_earlier() -> None:
    def gone_at(moment: float) -> set[str]:
        logs, ledger = log_without(sound_run(), BOB, Kind.DELIVERY, message="m3")
        told = Event(Kind.GONE, moment, 2, stream="mail", seq=3, last=3, code="clock.expired")
        alice, bob = logs
        events = (*bob.events[:4], told, *bob.events[4:])
        return {violation.rule for violation in check([alice, AgentLog(BOB, events)], ledger)}

    assert gone_at(101.0) == set()
    assert gone_at(99.0) == {"delivered"}


def test_it_lets_what_is_done_come_ahead_of_what_is_not() -> None:
    logs, ledger = log_changed(sound_run(), BOB, Kind.ACK, "", last=1)
    alice, bob = logs
    later = Event(Kind.ACK, 31.0, 2, stream="mail", seq=3, last=3)
    boxes = [replace(ledger.boxes[0], acknowledged=1, ahead=((3, 3),))]
    run = [alice, AgentLog(BOB, (*bob.events, later))], replace(ledger, boxes=boxes)
    assert check(*entry_changed(run, 3, ranges=((1, 1), (3, 3)))) == []


def test_it_lets_what_was_told_to_wait_come_later() -> None:
    logs, ledger = rows_swapped(sound_run())
    alice, bob = logs
    busy = Event(Kind.RECEIPT, 15.0, 1, "m1", status="busy", code="flow.busy")
    assert check([AgentLog(ALICE, (*alice.events, busy)), bob], ledger) == []


def test_rejects_a_connection_that_begins_behind_what_was_never_acknowledged() -> None:
    logs, ledger = sound_run()
    alice, bob = logs
    late = [Event(Kind.OPENED), Event(Kind.DELIVERY, 36.0, 2, "m3", "d3", ALICE, "", "mail", 3)]
    unacknowledged = tuple(e for e in bob.events if e.kind is not Kind.ACK)
    found = check([alice, AgentLog(BOB, (*unacknowledged, *late))], ledger)
    assert "mail 3 came where 1 was due" in {violation.detail for violation in found}


def test_it_reads_a_log_again_and_passes_over_what_a_kill_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "alice.jsonl"
    first = LogWriter(path, 1)
    first.write(Event(Kind.BEGAN), Event(Kind.SENT, message="m1", expires=7.5))
    first.close()
    with path.open("ab") as file:
        file.write(b'{"kind":"sent","mess')
    LogWriter(path, 2).write(Event(Kind.BEGAN))
    log = read_log(path)
    assert log.agent == "alice"
    assert [(e.kind, e.run, e.message) for e in log.events] == [
        (Kind.BEGAN, 1, ""),
        (Kind.SENT, 1, "m1"),
        (Kind.BEGAN, 2, ""),
    ]
    with path.open("ab") as file:
        file.write(b"nonsense\n" + b'{"kind":"settled"}\n')
    with pytest.raises(ValueError):
        read_log(path)
