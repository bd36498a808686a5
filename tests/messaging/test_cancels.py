"""A request whose sender no longer waits: its recipient is told, and nobody else, and not often."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from atp.wire.words import CANCEL
from messaging.mail.answered import answered_among
from messaging.mail.cancelled import _open_requests
from messaging.models import Envelope, SendOnlySession
from messaging.node import cancels
from registry.models import Entry
from tests.cast import Player, answer, ask, broadcast, write
from tests.conftest import LiveHub
from tests.messaging.conftest import LogIn
from tests.wire import Frame, Wire

Connect = Callable[..., Wire]


@pytest.fixture
def connect(hub: LiveHub, knock: LogIn) -> Connect:
    """Return a function that logs an agent in with the feature `cancel`."""

    def connect(player: Player, **login: object) -> Wire:
        wire = knock(player)
        challenge = wire.challenge()
        assert CANCEL in challenge["features"]
        features = [CANCEL, "unknown to the hub"]
        wire.authenticate(wire.prove(challenge["nonce"]), features=features, **login)
        wire.welcome = wire.next("welcome")
        return wire

    return connect


def _cancel(wire: Wire, *message_ids: str) -> None:
    """Cancel these requests in one message."""
    frames = [{"type": "cancel", "messageId": message_id} for message_id in message_ids]
    wire.send_text(json.dumps(frames[0] if len(frames) == 1 else frames))


def _told(wire: Wire) -> list[Frame]:
    return [frame for frame in wire.unasked() if frame["type"] == "cancel"]


def _end_with_a_cancellation(sender: Player, sending: Wire, target: Player, hearing: Wire) -> None:
    """Cancel one more request and wait until its recipient is told of it.

    Cancellations pass one lane in order. So all before it were told or dropped.
    """
    last = ask(sender, target)
    assert sending.submit(last)["status"] == "accepted"
    _cancel(sending, last.message_id)
    told = hearing.take(
        lambda f: f["type"] == "cancel" and f["messageId"] == last.message_id, "the last one"
    )
    assert told["sender"] == sender.id


def test_it_tells_the_recipient(connect: Connect, alice: Player, bob: Player) -> None:
    alices, bobs = connect(alice), connect(bob)
    request = ask(alice, bob)
    assert alices.submit(request)["status"] == "accepted"
    _cancel(alices, request.message_id)
    told = bobs.next("cancel")
    assert told == {"type": "cancel", "messageId": request.message_id, "sender": alice.id}


def test_it_tells_of_the_request_of_a_session_that_only_sends(
    connect: Connect, alice: Player, bob: Player
) -> None:
    running, bobs = connect(alice), connect(bob)
    tool = connect(alice, takeover=False)
    assert tool.welcome["sendOnly"] is True
    request = ask(alice, bob)
    assert tool.submit(request)["status"] == "accepted"
    _cancel(tool, request.message_id)
    assert bobs.next("cancel")["messageId"] == request.message_id
    _end_with_a_cancellation(alice, running, bob, bobs)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL scans small tables")
def test_its_cost_does_not_grow_with_the_traffic(alice: Player) -> None:
    """An agent may cancel a hundred requests a second, so no query reads all envelopes."""
    with CaptureQueriesContext(connection) as run:
        _open_requests({(alice.id, str(uuid.uuid4()))})
        answered_among({"digest"})
    with connection.cursor() as cursor:
        for query in run.captured_queries:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            steps = [row[3] for row in cursor.fetchall()]
            assert not [s for s in steps if s.startswith("SCAN") and "json_each" not in s], steps


def test_it_stores_nothing(connect: Connect, alice: Player, bob: Player) -> None:
    """No row, no entry, and a recipient that connects later is told nothing."""
    alices = connect(alice)
    request = ask(alice, bob)
    alices.submit(request)
    entries = Entry.objects.filter(sender=alice.id).count()
    _cancel(alices, request.message_id)
    alices.submit(write(alice, bob))
    bobs = connect(bob)
    assert bobs.mail()["ATP"]["messageId"] == request.message_id  # it may simply be delivered
    _end_with_a_cancellation(alice, alices, bob, bobs)
    assert _told(bobs) == []
    assert Entry.objects.filter(sender=alice.id).count() == entries + 2
    assert Envelope.objects.get(message_id=request.message_id).status == "accepted"


def test_the_answer_of_a_cancelled_request_is_still_accepted(
    connect: Connect, alice: Player, bob: Player
) -> None:
    """The recipient may have been faster. A late answer does no harm and is no violation."""
    alices, bobs = connect(alice), connect(bob)
    request = ask(alice, bob)
    alices.submit(request)
    _cancel(alices, request.message_id)
    bobs.next("cancel")
    assert bobs.submit(answer(bob, request))["status"] == "accepted"


def test_it_tells_nothing_to_a_recipient_without_the_feature(
    connect: Connect, log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, bobs = connect(alice), log_in(bob)
    request = ask(alice, bob)
    alices.submit(request)
    _cancel(alices, request.message_id)
    assert bobs.mail()["ATP"]["messageId"] == request.message_id
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    bobs.mail()
    assert _told(bobs) == []


@pytest.mark.parametrize("together", [False, True], ids=["alone", "in an array"])
def test_rejects_a_cancel_of_a_session_without_the_feature(
    log_in: LogIn, connect: Connect, alice: Player, bob: Player, together: bool
) -> None:
    """Of an array, nothing is taken."""
    alices, bobs = log_in(alice), connect(bob)
    request, other = ask(alice, bob), write(alice, bob)
    alices.submit(request)
    bobs.mail()
    cancel = json.dumps({"type": "cancel", "messageId": request.message_id})
    alices.send_text(f"[{other.text},{cancel}]" if together else cancel)
    assert alices.ended() == ("malformed.frame", 4400)
    assert not Envelope.objects.filter(message_id=other.message_id).exists()
    assert bobs.unasked() == []


@pytest.mark.parametrize(
    "wrong", [None, 7, "", "x", "0" * 10_000, ["a"], {"a": 1}, str(uuid.uuid4()).upper()]
)
def test_rejects_a_cancel_without_a_message_id(
    connect: Connect, alice: Player, wrong: object
) -> None:
    alices = connect(alice)
    alices.send_frame({"type": "cancel", "messageId": wrong})
    assert alices.ended() == ("malformed.frame", 4400)


# --- Cancellations that reach nobody -------------------------------------------------------------


def test_rejects_the_request_of_another_agent(
    connect: Connect, alice: Player, bob: Player, mallory: Player
) -> None:
    """Mallory knows the id: nobody hears of it, and she learns nothing."""
    alices, bobs, mallorys = connect(alice), connect(bob), connect(mallory)
    request = ask(alice, bob)
    alices.submit(request)
    _cancel(mallorys, request.message_id)
    _cancel(bobs, request.message_id)
    _end_with_a_cancellation(mallory, mallorys, bob, bobs)
    _end_with_a_cancellation(alice, alices, bob, bobs)
    assert _told(bobs) == []
    assert _told(alices) == _told(mallorys) == []


def test_it_keeps_senders_ids_apart(
    connect: Connect, alice: Player, bob: Player, mallory: Player
) -> None:
    """Mallory's own request has the id of Alice's: she cancels her own."""
    alices, bobs, mallorys = connect(alice), connect(bob), connect(mallory)
    request = ask(alice, bob)
    own = ask(mallory, bob, message_id=request.message_id)
    assert alices.submit(request)["status"] == mallorys.submit(own)["status"] == "accepted"
    _cancel(mallorys, own.message_id)
    assert bobs.next("cancel")["sender"] == mallory.id
    _end_with_a_cancellation(alice, alices, bob, bobs)
    assert _told(bobs) == []


def test_rejects_what_is_no_open_request(connect: Connect, alice: Player, bob: Player) -> None:
    """A note, a broadcast, an answer, an answered request, a denied one, an id of nobody."""
    alices, bobs = connect(alice), connect(bob)
    note, cast, answered = write(alice, bob), broadcast(alice), ask(alice, bob)
    denied, theirs = ask(alice, "nobody-here"), ask(bob, alice)
    for letter in (note, cast, answered):
        assert alices.submit(letter)["status"] == "accepted"
    assert alices.submit(denied)["status"] == "denied"
    assert bobs.submit(answer(bob, answered))["status"] == "accepted"
    assert bobs.submit(theirs)["status"] == "accepted"
    reply = answer(alice, theirs)
    assert alices.submit(reply)["status"] == "accepted"

    letters = (note, cast, answered, denied, reply)
    _cancel(alices, str(uuid.uuid4()), *(letter.message_id for letter in letters))
    _end_with_a_cancellation(alice, alices, bob, bobs)
    assert _told(bobs) == []


def test_rejects_the_cancel_of_an_expired_request(
    connect: Connect, alice: Player, bob: Player
) -> None:
    alices, bobs = connect(alice), connect(bob)
    request = ask(alice, bob)
    alices.submit(request)
    Envelope.objects.filter(message_id=request.message_id).update(expires_at="2020-01-01T00:00Z")
    _cancel(alices, request.message_id)
    _end_with_a_cancellation(alice, alices, bob, bobs)
    assert _told(bobs) == []


def test_it_tells_a_recipient_once_of_each_request(
    connect: Connect, alice: Player, bob: Player
) -> None:
    """However often it is cancelled, alone and in arrays."""
    alices, bobs = connect(alice), connect(bob)
    request = ask(alice, bob)
    alices.submit(request)
    for _ in range(3):
        _cancel(alices, *[request.message_id] * 256)
    assert bobs.next("cancel")["messageId"] == request.message_id
    _end_with_a_cancellation(alice, alices, bob, bobs)
    assert _told(bobs) == []


def test_it_bounds_what_a_flood_can_do(connect: Connect, alice: Player, bob: Player) -> None:
    """A flood of cancels with ids of nobody: the socket lives, and others are served."""
    alices, bobs = connect(alice), connect(bob)
    before = bobs.submit(write(bob, alice))
    for _ in range(40):
        _cancel(alices, *[str(uuid.uuid4()) for _ in range(256)])
    assert alices.submit(write(alice, bob))["status"] == before["status"] == "accepted"
    assert bobs.mail()["seq"] == 1


def test_an_allowance_is_spent_and_comes_back() -> None:
    allowance = cancels.Allowance()
    ids = [str(n) for n in range(3 * cancels.BURST)]
    passed = sum(allowance.take(message_id) for message_id in ids)
    assert cancels.BURST <= passed < 2 * cancels.BURST
    assert len(allowance.told) <= cancels.BURST
    allowance.counted_at -= 1
    assert allowance.take("one more")
    assert not allowance.take("one more")


def test_rejects_the_cancel_of_a_session_that_is_not_the_current_one(
    connect: Connect, alice: Player, bob: Player
) -> None:
    """The older socket is closed; what it still sends reaches nobody."""
    old, bobs = connect(alice), connect(bob)
    request = ask(alice, bob)
    old.submit(request)
    new = connect(alice)
    assert old.ended()[0] == "session.superseded"
    _end_with_a_cancellation(alice, new, bob, bobs)
    assert _told(bobs) == []


def test_it_tells_what_a_session_that_only_sends_has_cancelled(
    connect: Connect, log_in: LogIn, alice: Player, bob: Player
) -> None:
    """Its requests are as good as those of the running agent; after its end it tells nothing."""
    running, bobs = connect(alice), connect(bob)
    tool = log_in(alice, login={"takeover": False, "features": [CANCEL]})
    assert tool.welcome["sendOnly"] is True
    request = ask(alice, bob)
    assert tool.submit(request)["status"] == "accepted"
    _cancel(tool, request.message_id)
    told = bobs.next("cancel")
    assert told == {"type": "cancel", "messageId": request.message_id, "sender": alice.id}
    _end_with_a_cancellation(alice, running, bob, bobs)


def test_rejects_the_cancel_of_a_session_that_only_sent_and_is_fenced(
    connect: Connect, log_in: LogIn, alice: Player, bob: Player
) -> None:
    running, bobs = connect(alice), connect(bob)
    tool = log_in(alice, login={"takeover": False, "features": [CANCEL]})
    request = ask(alice, bob)
    tool.submit(request)
    SendOnlySession.objects.filter(agent_id=alice.id).delete()
    _cancel(tool, request.message_id)
    _end_with_a_cancellation(alice, running, bob, bobs)
    assert _told(bobs) == []
