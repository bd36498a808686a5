"""Senders that asked for `notify` are told in their stream what became of their envelopes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections
from pytest_django.fixtures import Settings

from messaging.mail.held import settle_held
from messaging.mail.mailboxes import credit_good_traffic
from messaging.mail.notices import place_notices
from messaging.mail.withhold import expire
from messaging.models import DeadLetter, Delivery, Mailbox
from registry.agents.actions import resume_agent, revoke_agent, revoke_key, suspend_agent
from registry.scores.models import GoodTraffic
from tests.cast import OFFICER, Letter, Player, answer, ask, broadcast, make_agent, write
from tests.conftest import LiveHub
from tests.messaging.conftest import LogIn, until
from tests.messaging.dead_mail import CODE, dead_letter, log_in_for_notices, refuse, stored
from tests.wire import Wire

LIFETIME_SECONDS = 60
AFTERWARDS = timedelta(seconds=LIFETIME_SECONDS + 1)


@pytest.fixture
def listen(hub: LiveHub) -> Iterator[Callable[[Player], Wire]]:
    """Return a function that logs agents in with the feature `notices`."""
    with ExitStack() as opened:
        yield lambda player: opened.enter_context(log_in_for_notices(hub, player))


def notices_for(player: Player) -> list[tuple[int, str, str]]:
    """Return place, status and code of each notice to an agent, once all are placed."""
    due = Delivery.objects.filter(sender=player.id, notice_due=True)

    def are_placed() -> bool:  # by this sweep, or by that of the hub's own beat
        place_notices()
        return not due.exists()

    until(are_placed, "the notices")
    rows = Delivery.objects.filter(recipient_id=player.id, state=Delivery.State.NOTICE)
    assert set(rows.values_list("stream", flat=True)) <= {"answers"}
    return list(rows.order_by("seq").values_list("seq", "notice", "code"))


def test_it_tells_a_sender_that_its_envelope_is_a_dead_letter(
    log_in: LogIn, listen: Callable[[Player], Wire], alice: Player, bob: Player
) -> None:
    dead = dead_letter(log_in, alice, bob, notify=True)
    assert notices_for(alice) == [(1, "refused", CODE)]
    alices = listen(alice)
    assert alices.answers() == {
        "type": "notice",
        "messageId": dead.envelope.message_id,
        "status": "refused",
        "code": CODE,
        "stream": "answers",
        "seq": 1,
    }


def test_it_tells_it_again_until_it_is_acknowledged(
    log_in: LogIn, listen: Callable[[Player], Wire], alice: Player, bob: Player
) -> None:
    dead_letter(log_in, alice, bob, notify=True)
    notices_for(alice)
    first, again = listen(alice).answers(), (alices := listen(alice)).answers()
    assert first == again
    alices.ack(1, stream="answers")
    until(lambda: Mailbox.objects.get(agent_id=alice.id, stream="answers").acked_seq == 1, "it")
    request = ask(alice, bob)
    alices = listen(alice)
    assert alices.submit(request)["status"] == "accepted"
    assert log_in(bob).submit(answer(bob, request))["status"] == "accepted"
    assert (frame := alices.answers())["type"] == "delivery"
    assert frame["seq"] == 2


def test_it_tells_nobody_who_has_not_asked_for_it(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    dead_letter(log_in, alice, bob)
    assert notices_for(alice) == []


def test_a_session_that_knows_no_notices_gets_gone_in_their_place(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    dead_letter(log_in, alice, bob, notify=True)
    notices_for(alice)
    place = {"stream": "answers", "from": 1, "to": 1}
    assert log_in(alice).answers() == {"type": "gone", **place, "code": "notice.unsupported"}


def test_it_tells_what_the_hub_itself_gave_up(log_in: LogIn, alice: Player, bob: Player) -> None:
    """Its handlers failed five times, and the agent did not come back to refuse it."""
    letter = write(alice, bob, notify=True)
    log_in(alice).submit(letter)
    Delivery.objects.filter(envelope__message_id=letter.message_id).update(failures=5)
    assert log_in(bob).mail()["code"] == CODE
    assert notices_for(alice) == [(1, "refused", CODE)]
    assert stored(letter).failures == 5


def test_it_tells_what_expired_undelivered(log_in: LogIn, alice: Player, bob: Player) -> None:
    letter = write(alice, bob, notify=True, lifetime=LIFETIME_SECONDS)
    log_in(alice).submit(letter)
    expire(datetime.now(UTC) + AFTERWARDS)
    assert notices_for(alice) == [(1, "expired", "clock.expired")]


def test_it_tells_what_was_withheld_for_good(log_in: LogIn, alice: Player, bob: Player) -> None:
    log_in(alice).submit(write(alice, bob, notify=True))
    revoke_key(alice.key.kid, actor=OFFICER, reason="lost")
    assert log_in(bob).mail()["withheld"] == "key.revoked"
    assert notices_for(alice) == [(1, "withheld", "key.revoked")]


def test_it_tells_nothing_of_what_is_held_before_that_ends(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    log_in(alice).submit(write(alice, bob, notify=True, lifetime=LIFETIME_SECONDS))
    suspend_agent(alice.id, actor=OFFICER, reason="a doubt")
    assert log_in(bob).mail()["withheld"] == "identity.not_active"
    assert notices_for(alice) == []
    settle_held(datetime.now(UTC) + AFTERWARDS)
    assert notices_for(alice) == [(1, "expired", "clock.expired")]
    resume_agent(alice.id, actor=OFFICER, reason="no doubt")


def test_it_tells_a_revoked_sender_nothing(log_in: LogIn, alice: Player, bob: Player) -> None:
    log_in(alice).submit(write(alice, bob, notify=True))
    revoke_agent(alice.id, actor=OFFICER, reason="a fault")
    assert log_in(bob).mail()["withheld"] == "identity.revoked"
    assert notices_for(alice) == []


def test_it_tells_each_state_of_a_broadcast_once(
    log_in: LogIn, listen: Callable[[Player], Wire], alice: Player, bob: Player
) -> None:
    others = [make_agent(organisation=alice.organisation) for _ in range(2)]
    hearers = [log_in(player) for player in (bob, *others)]
    alices = listen(alice)
    letter = broadcast(alice, notify=True)
    assert alices.submit(letter)["recipients"] == 3
    given = Delivery.objects.filter(envelope__message_id=letter.message_id, stream="mail")
    for player, hearer in zip((bob, *others), hearers, strict=True):
        refuse(hearer, hearer.mail())
        mine = given.filter(recipient_id=player.id, state=Delivery.State.REFUSED)
        until(mine.exists, "the refusal")
        assert notices_for(alice) == [(1, "refused", CODE)]
    assert alices.answers()["detail"] == "for one of its recipients or more"


def test_two_sweeps_at_once_tell_each_thing_once(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob, notify=True) for _ in range(20)]
    for letter in letters:
        alices.submit(letter)
    for _ in letters:
        refuse(bobs, bobs.mail())
    for letter in letters:
        stored(letter)

    def sweep(_: int) -> int:
        try:
            return place_notices()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(sweep, range(2)))
    told = notices_for(alice)
    assert [seq for seq, *_ in told] == list(range(1, 21))
    rows = Delivery.objects.filter(recipient_id=alice.id, state=Delivery.State.NOTICE)
    assert rows.values("envelope_id").distinct().count() == 20


# --- Attacks -------------------------------------------------------------------------------------


def test_rejects_more_than_one_notice_for_one_envelope(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """A recipient refuses the same envelope again and again, over new sessions too."""
    dead = dead_letter(log_in, alice, bob, notify=True)
    for _ in range(3):
        with log_in(bob) as bobs:
            for code in (CODE, "handler.failed_again"):
                bobs.ack(dead.seq, refused=code)
            letter = write(alice, bob)
            with log_in(alice) as alices:
                alices.submit(letter)
            bobs.ack(bobs.next("delivery")["seq"])
    assert notices_for(alice) == [(1, "refused", CODE)]


def test_it_makes_no_dead_letter_of_a_notice_that_is_refused(
    log_in: LogIn, listen: Callable[[Player], Wire], alice: Player, bob: Player
) -> None:
    """Or two agents could tell each other about notices without end."""
    dead_letter(log_in, alice, bob, notify=True)
    notices_for(alice)
    alices = listen(alice)
    refuse(alices, alices.answers())
    until(lambda: Mailbox.objects.get(agent_id=alice.id, stream="answers").acked_seq == 1, "it")
    assert not DeadLetter.objects.filter(recipient_id=alice.id, refused_at__isnull=False).exists()
    assert notices_for(bob) == []
    assert len(notices_for(alice)) == 1


def test_notices_fill_no_inbox(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    """Whoever refuses all mail of an agent does not keep the answers of others from it."""
    settings.ATP_INBOX_LIMIT = 10
    carol = make_agent(organisation=alice.organisation)
    alices, bobs, request = log_in(alice), log_in(bob), ask(alice, carol)
    assert alices.submit(request)["status"] == "accepted"
    for _ in range(12):
        assert alices.submit(write(alice, bob, notify=True))["status"] == "accepted"
        refuse(bobs, bobs.mail())
        until(lambda: Mailbox.objects.get(agent_id=bob.id, stream="mail").waiting == 0, "the ack")
    alices.close()
    assert len(notices_for(alice)) == 12
    assert Mailbox.objects.get(agent_id=alice.id, stream="answers").waiting == 0
    assert log_in(carol).submit(answer(carol, request))["status"] == "accepted"
    assert Mailbox.objects.get(agent_id=alice.id, stream="answers").waiting == 1


def test_rejects_an_own_envelope_as_a_cause_because_of_its_notice(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    letter = write(alice, bob, notify=True)
    with log_in(alice) as alices, log_in(bob) as bobs:
        alices.submit(letter)
        refuse(bobs, bobs.mail())
        stored(letter)
        assert len(notices_for(alice)) == 1
        receipt = alices.submit(write(alice, bob, cause=letter.digest))
    assert (receipt["status"], receipt["code"]) == ("denied", "trust.cause")


def test_it_credits_nobody_for_a_notice(
    log_in: LogIn, listen: Callable[[Player], Wire], alice: Player
) -> None:
    mallory = make_agent(name="mallory")
    dead_letter(log_in, alice, mallory, notify=True)
    notices_for(alice)
    alices = listen(alice)
    alices.ack(alices.answers()["seq"], stream="answers")
    until(lambda: Mailbox.objects.get(agent_id=alice.id, stream="answers").acked_seq == 1, "it")
    credit_good_traffic()
    assert not GoodTraffic.objects.filter(agent_id=mallory.id).exists()
    assert not GoodTraffic.objects.filter(agent_id=alice.id).exists()


def test_two_agents_that_refuse_each_others_mail_do_not_wait_for_each_other(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    pairs = [(alice, bob), (bob, alice)]
    wires = {player.id: log_in(player) for player, _ in pairs}
    letters: list[Letter] = []
    for _ in range(10):
        for sender, target in pairs:
            letters.append(write(sender, target, notify=True))
            assert wires[sender.id].submit(letters[-1])["status"] == "accepted"
    for _ in range(10):
        for wire in wires.values():
            refuse(wire, wire.mail())
        place_notices()
    for letter in letters:
        stored(letter)
    assert [len(notices_for(player)) for player in (alice, bob)] == [10, 10]
