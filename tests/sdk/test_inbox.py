"""The inbox: it removes repeats, acknowledges only handled mail, and has bounded memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atp.agent.inbox import Inbox
from atp.errors import SessionTransport


def acks(inbox: Inbox) -> list[Any]:
    frames = [json.loads(frame) for frame in inbox.acks()]
    return [(f["stream"], f["seq"], *([f["refused"]] if "refused" in f else [])) for f in frames]


def test_it_acknowledges_a_burst_once() -> None:
    inbox = Inbox()
    for seq in range(10, 15):
        assert inbox.advance("mail", first=seq, last=seq)
    inbox.advance("answers", first=1, last=1)
    assert inbox.has_acks()
    assert acks(inbox) == [("mail", 14), ("answers", 1)]
    assert not inbox.has_acks()
    assert acks(inbox) == []


def test_it_holds_back_acks_of_mail_beyond_its_backlog() -> None:
    inbox = Inbox(backlog_limit=2)
    for seq in range(1, 6):
        inbox.advance("mail", first=seq, last=seq)
        inbox.hold(seq, "alice", str(seq))
    assert acks(inbox) == [("mail", 2)]
    assert inbox.begin()
    assert acks(inbox) == [("mail", 3)]
    for _ in range(3):
        inbox.begin()
    assert acks(inbox) == [("mail", 5)]


def test_it_takes_nothing_more_when_told_so() -> None:
    inbox = Inbox()
    inbox.advance("mail", first=1, last=1)
    inbox.hold(1, "alice", "1")
    assert acks(inbox) == [("mail", 1)]
    inbox.set_taking(taking=False)
    inbox.advance("mail", first=2, last=2)
    inbox.hold(2, "alice", "2")
    assert acks(inbox) == []


def test_it_forgets_mail_that_no_handler_began() -> None:
    """It was not acknowledged or will come again, and then it must not be taken for a repeat."""
    inbox = Inbox()
    assert inbox.remember("alice", "1", expires_at=10, now=0)
    inbox.hold(1, "alice", "1")
    assert inbox.abandon() == 1
    assert inbox.remember("alice", "1", expires_at=10, now=0)


def test_it_names_what_it_refuses_in_its_place() -> None:
    inbox = Inbox()
    for seq in (1, 2, 3):
        inbox.advance("mail", first=seq, last=seq)
    inbox.refuse("mail", 2, "signature.digest")
    assert acks(inbox) == [("mail", 2, "signature.digest"), ("mail", 3)]
    inbox.advance("mail", first=4, last=4)
    inbox.refuse("mail", 4, "malformed.envelope")
    assert acks(inbox) == [("mail", 4, "malformed.envelope")]


def test_rejects_a_gap_and_starts_anew_with_a_connection() -> None:
    inbox = Inbox()
    inbox.advance("mail", first=7, last=9)
    with pytest.raises(SessionTransport):
        inbox.advance("mail", first=11, last=11)
    assert not inbox.advance("mail", first=8, last=8)
    inbox.open()
    assert inbox.advance("mail", first=8, last=8)
    assert acks(inbox) == [("mail", 8)]


def test_it_knows_repeats_until_they_expire() -> None:
    inbox = Inbox()
    assert inbox.remember("alice", "1", expires_at=10, now=0)
    assert not inbox.remember("alice", "1", expires_at=10, now=5)
    assert inbox.remember("bob", "1", expires_at=10, now=5)
    assert inbox.remember("alice", "2", expires_at=30, now=11)
    assert inbox.remember("alice", "1", expires_at=40, now=11)


def test_it_bounds_what_it_remembers() -> None:
    """When it is full, what expires first goes first."""
    inbox = Inbox(seen_limit=3)
    for n, expires_at in enumerate((40, 20, 30, 50)):
        assert inbox.remember("alice", str(n), expires_at=expires_at, now=0)
    assert not inbox.remember("alice", "0", expires_at=40, now=0)
    assert inbox.remember("alice", "1", expires_at=20, now=0)
