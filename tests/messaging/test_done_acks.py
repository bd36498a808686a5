"""Two acks: the window follows what is taken, redelivery what is done (docs/protocol.md#acks)."""

from __future__ import annotations

import threading

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from messaging.mail.acknowledging import MailboxAck, acknowledge
from messaging.mail.mailboxes import credit_good_traffic
from messaging.models import Mailbox, Presence
from messaging.node import positions
from messaging.node.process_node import process_node
from registry.scores.models import GoodTraffic
from tests.cast import Letter, Player, make_agent, write
from tests.messaging.acks import (
    TELLS_DONE,
    box_of,
    entered_ranges,
    hear,
    marks,
    position_of,
    states,
    wait_for_marks,
)
from tests.messaging.conftest import Arm, LogIn, until
from tests.waits import LONGEST_SECONDS
from tests.wire import Wire


def send(wire: Wire, sender: Player, target: Player, count: int) -> list[Letter]:
    letters = [write(sender, target, data={"n": n}) for n in range(count)]
    wire.send_together(*letters)
    assert {wire.receipt(letter)["status"] for letter in letters} == {"accepted"}
    return letters


def test_it_announces_the_feature(knock: LogIn) -> None:
    assert "done" in knock().challenge()["features"]


def test_the_window_follows_what_is_taken(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    settings.ATP_DELIVERY_WINDOW = 3
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 8)
    assert hear(bobs, 3) == [1, 2, 3]
    bobs.ack(3, begun=[1])
    assert hear(bobs, 3) == [4, 5, 6]
    wait_for_marks(bob, 3, 0, [])
    bobs.ack(6)
    assert hear(bobs, 2) == [7, 8]


def test_acks_of_a_quarter_of_the_window_do_not_wait_for_others(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a window an interval is the most that an agent gets."""
    settings.ATP_DELIVERY_WINDOW = 8
    monkeypatch.setattr(process_node.current().acks.lane, "_linger_seconds", 3_600.0)
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 12)
    assert hear(bobs, 8) == [1, 2, 3, 4, 5, 6, 7, 8]
    bobs.ack(1)
    assert bobs.unasked() == []
    assert marks(bob)[0] == 0
    bobs.ack(2)
    assert hear(bobs, 2) == [9, 10]


def test_a_stream_stops_at_what_is_not_done(
    log_in: LogIn, alice: Player, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "MOST_UNDONE", 4)
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 8)
    assert hear(bobs, 4) == [1, 2, 3, 4]
    bobs.ack(4, done=[[3, 3]])
    assert hear(bobs, 1) == [5]
    bobs.ack(5)
    wait_for_marks(bob, 5, 0, [[3, 3]])
    assert bobs.unasked() == []
    assert position_of(bob).undone == 4
    bobs.ack(5, done=[[1, 2], [4, 5]])
    assert hear(bobs, 3) == [6, 7, 8]


def test_it_delivers_again_what_is_taken_and_not_done(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """What is done is told as gone, one frame for each range, so that no place is missing."""
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 8)
    hear(bobs, 8)
    bobs.ack(8, done=[[2, 3], [5, 5], [7, 8]])
    wait_for_marks(bob, 8, 0, [[2, 3], [5, 5], [7, 8]])
    bobs.close()

    back = log_in(bob, login=TELLS_DONE)
    assert back.welcome["pending"] == 3
    done = "delivery.done"
    assert hear(back, 6) == [1, (2, 3, done), 4, (5, 5, done), 6, (7, 8, done)]
    back.ack(8, done=[[1, 8]])
    wait_for_marks(bob, 8, 8, [])
    assert entered_ranges(bob) == [[[2, 3], [5, 5], [7, 8]], [[1, 1], [4, 4], [6, 6]]]
    send(alices, alice, bob, 1)
    assert hear(back, 1) == [9]


def test_a_long_range_is_one_frame_beyond_the_window(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    settings.ATP_DELIVERY_WINDOW = 3
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 10)
    for upto in (3, 6, 9):
        hear(bobs, 3)
        bobs.ack(upto, done=[[max(2, upto - 2), upto]])
    hear(bobs, 1)
    bobs.ack(10)
    wait_for_marks(bob, 10, 0, [[2, 9]])
    bobs.cut()

    back = log_in(bob, login=TELLS_DONE)
    assert hear(back, 2) == [1, (2, 9, "delivery.done")]
    back.ack(9)
    assert hear(back, 1) == [10]


def test_a_repeat_changes_nothing(log_in: LogIn, alice: Player, bob: Player) -> None:
    """Each place is in the trail once, whatever the agent tells again and in which order."""
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 6)
    hear(bobs, 6)
    for taken, done in ((4, [[3, 4]]), (2, [[4, 4], [3, 5]]), (6, [[1, 1], [1, 1], [3, 4]])):
        bobs.ack(taken, done=done)
        _wait_until_done(bob, done)
    wait_for_marks(bob, 6, 1, [[3, 5]])
    bobs.ack(6, done=[[1, 6]])
    wait_for_marks(bob, 6, 6, [])
    told = [place for ranges in entered_ranges(bob) for place in ranges]
    assert sorted(n for first, last in told for n in range(first, last + 1)) == [1, 2, 3, 4, 5, 6]


def _wait_until_done(player: Player, ranges: list[list[int]]) -> None:
    until(lambda: all(_is_done(player, last) for _, last in ranges), "the ack")


def _is_done(player: Player, place: int) -> bool:
    _, mark, ahead = marks(player)
    return place <= mark or any(first <= place <= last for first, last in ahead)


def test_it_takes_what_is_done_last_before_a_socket_closes(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 3)
    hear(bobs, 3)
    bobs.ack(3, done=[[2, 3]])
    bobs.close()
    wait_for_marks(bob, 0, 0, [[2, 3]])


def test_what_is_being_stored_when_its_socket_closes_is_kept(
    log_in: LogIn, arm: Arm, alice: Player, bob: Player
) -> None:
    """The session ends first. Its last acks must count all the same, or handlers run again."""
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 2)
    hear(bobs, 2)
    held, closed = threading.Event(), threading.Event()

    def wait_for_the_end(_acks: object) -> None:
        if not held.is_set():
            held.set()
            assert closed.wait(LONGEST_SECONDS)

    arm("before_ack", wait_for_the_end)
    bobs.ack(2, done=[[1, 1]])
    assert held.wait(LONGEST_SECONDS)
    bobs.close()
    until(lambda: not Presence.objects.filter(agent_id=bob.id).exists(), "the end of the session")
    closed.set()
    wait_for_marks(bob, 1, 1, [])


def test_it_refuses_several_places_in_one_ack(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 4)
    hear(bobs, 4)
    refused = [[2, "handler.failed"], [4, "recipient.no_handler"]]
    bobs.ack(4, done=[[1, 1]], refused=refused)
    wait_for_marks(bob, 4, 2, [[4, 4]])
    bobs.ack(4, done=[[3, 3]], refused=[[1, "too.late"], [2, "too.late"]])
    wait_for_marks(bob, 4, 4, [])
    assert states(bob) == [
        ("waiting", "", 0),
        ("refused", "handler.failed", 0),
        ("waiting", "", 0),
        ("refused", "recipient.no_handler", 0),
    ]


@pytest.mark.parametrize(
    ("features", "members"),
    [
        ([], {"done": [[1, 1]]}),
        ([], {"begun": [1]}),
        ([], {"retry": [[1, 1]]}),
        ([], {"refused": [[1, "handler.failed"]]}),
        (["done"], {"refused": "handler.failed"}),
    ],
    ids=["done", "begun", "retry", "refused", "one code"],
)
def test_rejects_acks_of_the_other_meaning(
    log_in: LogIn,
    alice: Player,
    bob: Player,
    features: list[str],
    members: dict[str, object],
) -> None:
    """None of the array is taken: the valid ack in front neither."""
    alices, bobs = log_in(alice), log_in(bob, login={"features": features})
    send(alices, alice, bob, 1)
    hear(bobs, 1)
    ack = {"type": "ack", "stream": "mail", "seq": 1}
    bobs.send_frame([ack, {**ack, **members}])
    assert bobs.ended()[0] == "malformed.frame"
    until(lambda: not Presence.objects.filter(agent_id=bob.id).exists(), "the end of the session")
    assert (box_of(bob).taken_seq, box_of(bob).acked_seq) == (0, 0)


def test_a_session_without_the_feature_goes_on_from_one_with_it(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """Its ack means done; what was done before is gone, which such a client knows."""
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 5)
    hear(bobs, 5)
    bobs.ack(5, done=[[2, 3], [5, 5]])
    wait_for_marks(bob, 5, 0, [[2, 3], [5, 5]])
    older = log_in(bob, login={"features": ["no such feature"]})
    done = "delivery.done"
    assert hear(older, 4) == [1, (2, 3, done), 4, (5, 5, done)]
    older.ack(4)
    wait_for_marks(bob, 5, 5, [])
    assert entered_ranges(bob) == [[[2, 3], [5, 5]], [[1, 1], [4, 4]]]


def test_the_inbox_counts_what_is_not_done(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    settings.ATP_INBOX_LIMIT = 30  # a tenth of it for one sender
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    send(alices, alice, bob, 3)
    hear(bobs, 3)
    bobs.ack(3)
    wait_for_marks(bob, 3, 0, [])
    assert alices.submit(write(alice, bob))["code"] == "flow.recipient_full"
    bobs.ack(3, done=[[2, 3]])
    wait_for_marks(bob, 3, 0, [[2, 3]])
    assert box_of(bob).waiting == 1
    send(alices, alice, bob, 2)
    assert alices.submit(write(alice, bob))["code"] == "flow.recipient_full"


def test_scores_are_credited_up_to_the_mark(log_in: LogIn, bob: Player) -> None:
    stranger = make_agent()
    sending, bobs = log_in(stranger), log_in(bob, login=TELLS_DONE)
    send(sending, stranger, bob, 3)
    hear(bobs, 3)

    def credited() -> int:
        credit_good_traffic()
        rows = GoodTraffic.objects.filter(agent_id=stranger.id)
        return sum(rows.values_list("count", flat=True))

    bobs.ack(3, done=[[2, 3]])
    wait_for_marks(bob, 3, 0, [[2, 3]])
    assert credited() == 0
    bobs.ack(3, done=[[1, 1]])
    wait_for_marks(bob, 3, 3, [])
    assert credited() == 3


def test_a_batch_of_acks_is_one_statement_a_table(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """The ranges are written only where there are some, and then in the same statement."""
    carol = make_agent(name="carol", organisation=alice.organisation)
    alices = log_in(alice)
    for player in (bob, carol):
        send(alices, alice, player, 4)
        log_in(player, login=TELLS_DONE)
    in_order = _updates(_acks((bob, 1), (carol, 2)))
    assert len(in_order) == 1
    assert "done_ahead" not in in_order[0]
    ahead = _updates(_acks((bob, 2), (carol, 4)))
    assert len(ahead) == 1
    assert "done_ahead" in ahead[0]
    assert marks(carol) == (4, 2, [[4, 4]])
    (joined,) = _updates(_acks((carol, 3)))
    assert "done_ahead" in joined
    assert marks(carol) == (4, 4, [])


def _acks(*told: tuple[Player, int]) -> list[MailboxAck]:
    """Acks of single places, or for the second of `told` of the first two."""
    sessions = dict(Presence.objects.values_list("agent_id", "session_id"))
    return [
        MailboxAck(p.id, str(sessions[p.id]), "mail", seq, done=((1 if seq == 2 else seq, seq),))
        for p, seq in told
    ]


def _updates(acks: list[MailboxAck]) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        assert len(acknowledge(acks)) == len(acks)
    table = Mailbox._meta.db_table
    return [q["sql"] for q in queries if q["sql"].strip().startswith(f"UPDATE {table}")]
