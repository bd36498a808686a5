"""Mail of a suspended sender is held, and does not delay the mail of other senders."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from messaging.mail.held import settle_held
from messaging.models import Delivery
from registry.agents.actions import resume_agent, revoke_agent, revoke_key, suspend_agent
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import OFFICER, Letter, Player, make_agent, write
from tests.messaging.conftest import LogIn, until
from tests.wire import Wire

REASON = "it is part of the play"
LIFETIME_SECONDS = 60
HELD = {"type": "delivery", "stream": "mail", "withheld": "identity.not_active"}


def _kinds(letter: Letter) -> list[str]:
    entries = Entry.objects.filter(message_id=letter.message_id).order_by("position")
    return list(entries.values_list("kind", flat=True))


@pytest.fixture
def letters(log_in: LogIn, alice: Player, bob: Player) -> list[Letter]:
    """Store two envelopes of Alice to Bob, who is not connected; then suspend Alice."""
    alices = log_in(alice)
    written = [write(alice, bob, lifetime=LIFETIME_SECONDS) for _ in range(2)]
    for letter in written:
        assert alices.submit(letter)["status"] == "accepted"
    suspend_agent(alice.id, actor=OFFICER, reason=REASON)
    return written


@pytest.fixture
def bobs(log_in: LogIn, bob: Player, letters: list[Letter]) -> Wire:
    """Bob connects while Alice is suspended, and mail of another sender follows hers."""
    carol = make_agent()
    assert log_in(carol).submit(other := write(carol, bob))["status"] == "accepted"
    wire = log_in(bob)
    assert [wire.mail(), wire.mail()] == [{**HELD, "seq": 1}, {**HELD, "seq": 2}]
    assert _id(wire.mail()) == other.message_id
    wire.ack(3)
    return wire


def test_it_delivers_held_mail_once_its_sender_is_resumed(
    bobs: Wire, alice: Player, letters: list[Letter]
) -> None:
    settle_held(datetime.now(UTC))  # she is suspended still
    resume_agent(alice.id, actor=OFFICER, reason=REASON)
    settle_held(datetime.now(UTC))

    assert [(f["seq"], _id(f)) for f in (bobs.mail(), bobs.mail())] == [
        (4, letters[0].message_id),
        (5, letters[1].message_id),
    ]
    settle_held(datetime.now(UTC))
    for letter in letters:
        assert _kinds(letter) == [
            Kind.ENVELOPE_ACCEPTED,
            Kind.ENVELOPE_WITHHELD,
            Kind.ENVELOPE_RELEASED,
        ]


def test_it_delivers_at_its_place_what_nobody_came_for_meanwhile(
    log_in: LogIn, alice: Player, bob: Player, letters: list[Letter]
) -> None:
    resume_agent(alice.id, actor=OFFICER, reason=REASON)
    bobs = log_in(bob)
    assert [_id(bobs.mail()) for _ in letters] == [letter.message_id for letter in letters]
    assert _kinds(letters[0]) == [Kind.ENVELOPE_ACCEPTED]


def _revoke(alice: Player) -> None:
    revoke_agent(alice.id, actor=OFFICER, reason=REASON)


def _revoke_key(alice: Player) -> None:
    revoke_key(alice.key.kid, actor=OFFICER, reason=REASON)
    resume_agent(alice.id, actor=OFFICER, reason=REASON)


@pytest.mark.parametrize(
    ("end", "code"), [(_revoke, "identity.revoked"), (_revoke_key, "key.revoked")]
)
def test_rejects_held_mail_for_good_once_its_sender_is_revoked(
    log_in: LogIn,
    bobs: Wire,
    alice: Player,
    bob: Player,
    letters: list[Letter],
    end: Callable[[Player], None],
    code: str,
) -> None:
    end(alice)
    settle_held(datetime.now(UTC))

    mine = Delivery.objects.filter(recipient_id=bob.id, sender=alice.id)
    until(lambda: set(mine.values_list("state", "code")) == {("withheld", code)}, "the end")
    assert _kinds(letters[0])[-1] == Kind.ENVELOPE_WITHHELD
    _assert_nothing_came(log_in, bobs, bob)


def test_it_expires_held_mail(
    log_in: LogIn, bobs: Wire, alice: Player, bob: Player, letters: list[Letter]
) -> None:
    settle_held(datetime.now(UTC) + timedelta(seconds=LIFETIME_SECONDS + 1))
    until(lambda: _kinds(letters[0])[-1] == Kind.ENVELOPE_EXPIRED, "the end")
    resume_agent(alice.id, actor=OFFICER, reason=REASON)
    settle_held(datetime.now(UTC))
    _assert_nothing_came(log_in, bobs, bob)


def _assert_nothing_came(log_in: LogIn, bobs: Wire, bob: Player) -> None:
    """The next to arrive is an honest letter, at the very next place."""
    honest = make_agent()
    assert log_in(honest).submit(letter := write(honest, bob))["status"] == "accepted"
    frame = bobs.mail()
    assert (frame["seq"], _id(frame)) == (4, letter.message_id)


def _id(frame: dict[str, object]) -> object:
    envelope = frame["ATP"]
    assert isinstance(envelope, dict)
    return envelope["messageId"]
