"""A lease that ran out is renewed without its sessions: what was fenced once stays fenced."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from messaging.judging import pipeline
from messaging.layer.routes import load_routes
from messaging.mail.acknowledging import MailboxAck, acknowledge
from messaging.models import Envelope, Node, Presence, Session
from messaging.sessions import leases
from tests.cast import Letter, Player, write


def new_node(channel: str) -> uuid.UUID:
    """Enter a node with a lease, beside that of this run's hub, which `leases.take` would end."""
    now, node_id = datetime.now(UTC), uuid.uuid4()
    ends = now + timedelta(minutes=1)
    Node.objects.create(
        id=node_id, name="a test", channel=channel, started_at=now, lease_until=ends
    )
    return node_id


@pytest.fixture
def node() -> Iterator[uuid.UUID]:
    """A node that only the test renews."""
    node_id = new_node("a-channel-of-nobody")
    yield node_id
    leases.release(node_id)


@pytest.fixture
def session(alice: Player, node: uuid.UUID) -> str:
    """Alice's current session, on that node."""
    now, session = datetime.now(UTC), uuid.uuid4()
    Session.objects.create(
        id=session, agent_id=alice.id, node_id=node, kid=alice.key.kid, opened_at=now
    )
    Presence.objects.create(agent_id=alice.id, session_id=session, node_id=node)
    return str(session)


def run_out(node: uuid.UUID) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=1)
    Node.objects.filter(id=node).update(lease_until=long_ago)


def judge(session: str, agent: Player, letter: Letter) -> bool:
    """Whether a batch of this letter, sent over that session, is stored."""
    batch = {"batch": str(uuid.uuid4()), "channel": "a-channel-of-nobody"}
    pipeline.check({**batch, "frames": [[session, agent.id, letter.text]]})
    return Envelope.objects.filter(message_id=letter.message_id).exists()


def test_what_follows_a_fenced_batch_is_fenced_after_the_renewal_too(
    alice: Player, bob: Player, node: uuid.UUID, session: str
) -> None:
    """The second would stand before the first, which its sender sends again."""
    run_out(node)
    assert not judge(session, alice, write(alice, bob, data={"n": 1}))
    assert leases.renew(node) is False
    assert not judge(session, alice, write(alice, bob, data={"n": 2}))
    assert alice.id not in load_routes([alice.id])


def test_an_ack_of_a_fenced_session_is_not_taken_after_the_renewal(
    alice: Player, node: uuid.UUID, session: str
) -> None:
    run_out(node)
    leases.renew(node)
    assert acknowledge([MailboxAck(alice.id, session, "mail", 1)]) == []


def test_a_lease_that_holds_is_renewed_with_its_sessions(
    alice: Player, bob: Player, node: uuid.UUID, session: str
) -> None:
    assert leases.renew(node) is True
    assert judge(session, alice, write(alice, bob))


def test_a_session_that_went_to_another_node_stays_current(
    alice: Player, bob: Player, node: uuid.UUID, session: str
) -> None:
    other = new_node("another-channel")
    Presence.objects.filter(agent_id=alice.id).update(node_id=other)
    run_out(node)
    assert leases.renew(node) is False
    assert judge(session, alice, write(alice, bob))


def test_a_lease_that_was_released_is_not_renewed(node: uuid.UUID) -> None:
    leases.release(node)
    assert leases.renew(node) is False
    assert not Node.objects.filter(id=node, lease_until__gt=datetime.now(UTC)).exists()
