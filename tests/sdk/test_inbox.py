"""The inbox: what it takes, what it tells the hub, repeats, and its bounds."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from atp import IAgentIdentity, MessageType, PrivateKey, new_document, parse_envelope, sign_envelope
from atp.agent.inbox import Inbox
from atp.agent.mail import Mail, MailState
from atp.agent.receiving import Received, Verifier
from atp.agent.seen import SeenMessages
from atp.agent.session import AgentSession
from atp.errors import SessionTransport
from atp.wire.frames import Delivery, Welcome
from atp.wire.words import DONE

EXPIRES = 60.0
ID = str(uuid.uuid4())


def acks(inbox: Inbox) -> list[Any]:
    """The members of the acks to send now, without their type."""
    frames = [json.loads(frame) for frame in inbox.acks()]
    return [{name: value for name, value in f.items() if name != "type"} for f in frames]


def received(
    seq: int,
    message_id: str | None = None,
    *,
    attempt: int = 1,
    redelivered: bool = False,
    expires_at: float = EXPIRES,
) -> Received:
    document = new_document(
        identity=IAgentIdentity("alice"),
        message_type=MessageType.NOTIFICATION,
        target="bob",
        data=seq,
    )
    document["messageId"] = message_id or str(uuid.uuid4())
    key = PrivateKey.generate()
    signed = sign_envelope(document, key, hub_id="hub-1", now=0.0, lifetime_seconds=60)
    envelope = parse_envelope(signed)
    delivery = Delivery(
        "mail",
        seq,
        {"ATP": envelope.document},
        plain=True,
        attempt=attempt,
        redelivered=redelivered,
    )
    return Received(delivery, envelope, 0.0, expires_at, verified=False)


def opened(*, done: bool = True, **options: Any) -> Inbox:
    """An inbox with a handler, on a new connection."""
    inbox = Inbox(**options)
    inbox.open(tells_done=done)
    inbox.set_taking(taking=True)
    return inbox


def deliver(inbox: Inbox, *items: Received) -> list[Mail]:
    """Deliver messages; return those whose handlers may begin, as the dispatcher gets them."""
    for item in items:
        seq = item.delivery.seq
        assert inbox.advance("mail", first=seq, last=seq)
        inbox.arrive(item)
    taken = list(inbox.take())
    for mail in taken:
        mail.dispatched = True
    return taken


def test_it_tells_what_is_taken_and_later_what_is_done() -> None:
    inbox = opened()
    mail = deliver(inbox, *(received(seq) for seq in range(10, 15)))
    assert inbox.has_urgent_acks
    assert acks(inbox) == [{"stream": "mail", "seq": 14}]
    assert not inbox.has_acks
    for one in mail:
        inbox.begin(one)
    assert acks(inbox) == [{"stream": "mail", "seq": 14, "begun": [10, 11, 12, 13, 14]}]
    for place in (0, 1, 4):
        inbox.finish(mail[place])
    assert not inbox.has_urgent_acks
    assert acks(inbox) == [{"stream": "mail", "seq": 14, "done": [[10, 11], [14, 14]]}]
    assert not inbox.has_acks


def test_it_tells_failures_and_refusals() -> None:
    inbox = opened()
    first, second = deliver(inbox, received(1), received(2))
    inbox.begin(first)
    inbox.begin(second)
    acks(inbox)
    inbox.retry(first)
    inbox.finish(second, "handler.failed")
    (told,) = acks(inbox)
    assert (told["retry"], told["refused"]) == ([[1, 1]], [[2, "handler.failed"]])
    assert first.is_alone
    inbox.begin(first)
    assert acks(inbox) == [{"stream": "mail", "seq": 2, "begun": [1]}]


def test_it_tells_a_new_beginning_after_the_failure_before_it() -> None:
    """In one frame, the hub could not know which of the two was first."""
    inbox = opened()
    (mail,) = deliver(inbox, received(1))
    inbox.begin(mail)
    acks(inbox)
    inbox.retry(mail)
    inbox.begin(mail)
    assert acks(inbox) == [{"stream": "mail", "seq": 1, "retry": [[1, 1]]}]
    assert inbox.has_urgent_acks
    assert acks(inbox) == [{"stream": "mail", "seq": 1, "begun": [1]}]


def test_it_takes_nothing_without_a_handler() -> None:
    inbox = Inbox()
    inbox.open(tells_done=True)
    assert deliver(inbox, received(1), received(2)) == []
    assert acks(inbox) == []
    inbox.set_taking(taking=True)
    assert [mail.place for mail in inbox.take()] == [1, 2]
    assert acks(inbox) == [{"stream": "mail", "seq": 2}]


def test_it_takes_no_more_than_its_backlog() -> None:
    inbox = opened(backlog_limit=2)
    mail = deliver(inbox, *(received(seq) for seq in range(1, 6)))
    assert [one.place for one in mail] == [1, 2]
    assert acks(inbox) == [{"stream": "mail", "seq": 2}]
    inbox.begin(mail[0])
    assert [one.place for one in inbox.take()] == [3]


def test_it_acknowledges_in_one_go_what_no_handler_gets() -> None:
    inbox = opened()
    inbox.advance("mail", first=1, last=70_000)
    inbox.close("mail", 1, 70_000)
    inbox.advance("mail", first=70_001, last=70_001)
    inbox.close("mail", 70_001, 70_001, "signature.digest")
    assert list(inbox.take()) == []
    assert acks(inbox) == [
        {
            "stream": "mail",
            "seq": 70_001,
            "done": [[1, 70_000]],
            "refused": [[70_001, "signature.digest"]],
        }
    ]


def test_it_bounds_what_one_frame_tells() -> None:
    inbox = opened(backlog_limit=1000)
    mail = deliver(inbox, *(received(seq) for seq in range(1, 601)))
    for one in mail[::2]:
        inbox.finish(one)
    parts = []
    while inbox.has_acks:
        parts += [len(ack.get("done", [])) for ack in acks(inbox)]
    assert parts == [256, 44]


# --- Repeats ---


def test_it_holds_a_repeat_of_what_runs_and_acknowledges_one_of_what_is_done() -> None:
    inbox = opened()
    items = [received(seq) for seq in (1, 2, 3)]
    waits, runs, done = deliver(inbox, *items)
    inbox.begin(runs)
    inbox.finish(done)
    acks(inbox)
    inbox.open(tells_done=True)
    assert deliver(inbox, *items) == [waits]
    assert acks(inbox) == [{"stream": "mail", "seq": 3, "begun": [2], "done": [[3, 3]]}]
    inbox.finish(runs)
    inbox.begin(waits)
    assert acks(inbox) == [{"stream": "mail", "seq": 3, "begun": [1], "done": [[2, 2]]}]


def test_it_acknowledges_again_what_ended_while_it_was_away() -> None:
    inbox = opened()
    item = received(1)
    (mail,) = deliver(inbox, item)
    inbox.begin(mail)
    inbox.lost()
    inbox.finish(mail, "handler.failed")
    inbox.open(tells_done=True)
    assert deliver(inbox, item) == []
    assert acks(inbox) == [{"stream": "mail", "seq": 1, "refused": [[1, "handler.failed"]]}]


def test_it_does_not_begin_what_the_new_connection_has_not_delivered() -> None:
    inbox = opened()
    item = received(1)
    (mail,) = deliver(inbox, item)
    assert mail.attached
    inbox.lost()
    assert not mail.attached
    inbox.open(tells_done=True)
    deliver(inbox, item)
    assert mail.attached


def test_it_keeps_what_waits_when_its_repeat_is_lost_too() -> None:
    """Two connections end one after the other; it is still the same message."""
    inbox = opened()
    item = received(1)
    (mail,) = deliver(inbox, item)
    inbox.open(tells_done=True)
    inbox.set_taking(taking=False)
    assert deliver(inbox, item) == []
    inbox.open(tells_done=True)
    inbox.set_taking(taking=True)
    assert deliver(inbox, item) == [mail]


def test_it_drops_what_the_hub_took_back_while_it_was_away() -> None:
    inbox = opened()
    first, second, third = deliver(inbox, received(1), received(2), received(3))
    inbox.begin(third)
    inbox.open(tells_done=True)
    inbox.advance("mail", first=2, last=3)  # 1 is done, as the hub says
    inbox.close("mail", 2, 3)
    assert first.state is second.state is MailState.WITHDRAWN
    assert third.state is MailState.RUNNING


def test_it_runs_anew_what_officers_send_again() -> None:
    inbox = opened()
    item = received(1)
    (mail,) = deliver(inbox, item)
    inbox.finish(mail, "handler.failed")
    again = received(2, item.envelope.message_id, redelivered=True)
    assert [one.place for one in deliver(inbox, again)] == [2]


def test_what_was_sent_again_is_a_repeat_at_its_place() -> None:
    """Its ack got lost with the connection: the handler does not run twice."""
    inbox = opened()
    item = received(1)
    (mail,) = deliver(inbox, item)
    inbox.finish(mail, "handler.failed")
    again = received(2, item.envelope.message_id, redelivered=True)
    (mail,) = deliver(inbox, again)
    inbox.finish(mail)
    inbox.open(tells_done=True)
    assert deliver(inbox, again) == []
    assert [ack.get("done") for ack in acks(inbox)] == [[[2, 2]]]
    anew = received(3, item.envelope.message_id, redelivered=True)
    assert [one.place for one in deliver(inbox, anew)] == [3]


def test_it_counts_the_failures_that_the_hub_tells() -> None:
    (mail,) = deliver(opened(), received(1, attempt=3))
    assert mail.failures == 2
    assert mail.is_alone


def test_it_forgets_what_it_hands_back() -> None:
    inbox = opened()
    item = received(1)
    deliver(inbox, item, received(2))
    inbox.lost()
    assert [mail.place for mail in inbox.hand_back()] == [1, 2]
    inbox.open(tells_done=True)
    assert [mail.place for mail in deliver(inbox, item)] == [1]


def test_it_knows_what_is_done_until_it_expires() -> None:
    seen = SeenMessages(recent=0)
    key = ("alice", "1")
    assert not seen.is_repeat(key, expires_at=10, now=0)
    assert seen.is_repeat(key, expires_at=10, now=5)
    assert not seen.is_repeat(("bob", "1"), expires_at=10, now=5)
    seen.forget_expired(11)
    assert not seen.is_repeat(key, expires_at=40, now=11)


def test_it_bounds_what_it_remembers() -> None:
    """When it is full, what expires first goes first."""
    inbox = Inbox(seen_limit=3)
    for n, expires_at in enumerate((40, 20, 30, 50)):
        assert not inbox.seen.is_repeat(("alice", str(n)), expires_at=expires_at, now=0)
    assert inbox.seen.is_repeat(("alice", "3"), expires_at=50, now=0)
    assert not inbox.seen.is_repeat(("alice", "1"), expires_at=20, now=0)


# --- A hub without the feature `done` ---


def test_it_acknowledges_to_an_older_hub_what_is_done_without_gaps() -> None:
    inbox = opened(done=False)
    mail = deliver(inbox, *(received(seq) for seq in range(7, 11)))
    assert acks(inbox) == []
    for place in (1, 3):
        inbox.begin(mail[place])
        inbox.finish(mail[place])
    assert acks(inbox) == []
    inbox.finish(mail[0])
    assert acks(inbox) == [{"stream": "mail", "seq": 8}]
    inbox.finish(mail[2])
    assert acks(inbox) == [{"stream": "mail", "seq": 10}]


def test_it_names_to_an_older_hub_what_it_refuses_in_its_place() -> None:
    inbox = opened(done=False)
    first, second, third = deliver(inbox, received(1), received(2), received(3))
    inbox.finish(second, "handler.failed")
    inbox.finish(third)
    assert acks(inbox) == []
    inbox.finish(first)
    assert acks(inbox) == [
        {"stream": "mail", "seq": 2, "refused": "handler.failed"},
        {"stream": "mail", "seq": 3},
    ]


def test_rejects_a_gap_and_starts_anew_with_a_connection() -> None:
    inbox = opened()
    inbox.advance("mail", first=7, last=9)
    with pytest.raises(SessionTransport):
        inbox.advance("mail", first=11, last=11)
    assert not inbox.advance("mail", first=8, last=8)
    inbox.open(tells_done=True)
    assert inbox.advance("mail", first=8, last=8)


def test_it_knows_what_was_done_also_after_it_expired() -> None:
    """A session keeps what it has taken. If an ack got lost, the hub repeats it, however late."""
    inbox = opened()
    (mail,) = deliver(inbox, received(1, ID))
    inbox.begin(mail)
    inbox.finish(mail)
    inbox.open(tells_done=True)
    inbox.seen.forget_expired(EXPIRES + 1)
    assert deliver(inbox, received(1, ID)) == []
    assert acks(inbox) == [{"stream": "mail", "seq": 1, "done": [[1, 1]]}]


def test_it_forgets_what_expired_and_was_done_long_ago() -> None:
    seen = SeenMessages(recent=2)
    for number in range(4):
        seen.add(("alice", str(number)), "", EXPIRES)
    seen.forget_expired(EXPIRES + 1)
    assert [seen.code(("alice", str(number))) for number in range(4)] == [None, None, "", ""]
    seen.add(("alice", "4"), "", 2 * EXPIRES)
    assert seen.code(("alice", "2")) is None


def test_it_tells_what_is_done_with_the_next_message() -> None:
    """So a lone request costs one ack, not two."""
    session = AgentSession(Verifier("bob", "hub-1", lambda agent: ()))
    session.opened(Welcome("session-1", "bob", "verified", 80, window=8, pending=0), [DONE])
    inbox = session.inbox
    inbox.set_taking(taking=True)
    (first,) = deliver(inbox, received(1))
    inbox.begin(first)
    assert len(session.urgent_acks(ticks=1.0)) == 1
    inbox.finish(first)
    assert not session.urgent_acks(ticks=1.01)
    assert not session.data_to_send(ticks=1.01)
    due = session.next_due()
    assert due is not None
    (second,) = deliver(inbox, received(2))
    inbox.begin(second)
    (told,) = session.urgent_acks(ticks=due - 0.01)
    members = {"stream": "mail", "seq": 2, "begun": [2], "done": [[1, 1]], "type": "ack"}
    assert json.loads(told) == members
    assert session.next_due() is None
    inbox.finish(second)
    assert not session.data_to_send(ticks=2.0)
    due = session.next_due()
    assert due is not None
    (told,) = session.data_to_send(ticks=due)
    assert json.loads(told)["done"] == [[2, 2]]


def test_it_takes_no_more_bytes_than_its_limit() -> None:
    items = [received(seq) for seq in range(1, 6)]
    size = len(items[0].envelope.canonical)
    inbox = opened(bytes_limit=2 * size + size // 2)
    first, second = deliver(inbox, *items)
    assert acks(inbox) == [{"stream": "mail", "seq": 2}]
    inbox.begin(first)
    inbox.retry(first)  # it is kept, so it counts
    assert not list(inbox.take())
    inbox.finish(second)
    (third,) = inbox.take()
    inbox.cut(third)
    inbox.finish(first)
    assert len(list(inbox.take())) == 2
    assert len(inbox.hand_back()) == 2


def test_it_takes_a_message_above_its_limit_alone() -> None:
    inbox = opened(bytes_limit=1)
    (first,) = deliver(inbox, received(1), received(2))
    inbox.begin(first)
    assert not list(inbox.take())
    inbox.finish(first)
    assert len(list(inbox.take())) == 1


def test_a_message_that_comes_again_counts_once() -> None:
    item = received(1)
    inbox = opened(bytes_limit=len(item.envelope.canonical))
    (mail,) = deliver(inbox, item)
    inbox.open(tells_done=True)
    assert deliver(inbox, item) == [mail]
    inbox.begin(mail)
    inbox.finish(mail)
    inbox.set_taking(taking=True)
    assert len(deliver(inbox, received(2))) == 1
