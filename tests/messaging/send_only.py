"""What the tests of sessions that only send share: their logins, and answers to them."""

from __future__ import annotations

import uuid

from messaging.judging import pipeline
from messaging.models import (
    Envelope,
)
from messaging.node.process_node import process_node
from tests.cast import Letter, Player, answer, ask
from tests.wire import Wire

BESIDE = {"takeover": False}
ONLY = {"sendOnly": True}
ELSEWHERE = "delivery.elsewhere"


def answer_to(asking: Wire, asked: Wire) -> Letter:
    """A request of this session, and its answer."""
    assert asked.player is not None
    assert asking.player is not None
    asking.submit(request := ask(asking.player, asked.player))
    asked.mail()
    asked.submit(response := answer(asked.player, request))
    return response


def exchange(asked: Wire, asking: Wire) -> int:
    """A request of one agent and its answer; the place of the answer in its stream."""
    assert asked.player is not None
    assert asking.player is not None
    asking.submit(request := ask(asking.player, asked.player))
    asked.mail()
    assert asked.submit(answer(asked.player, request))["status"] == "accepted"
    seq: int = asking.answers()["seq"]
    return seq


def is_stored(session: str, player: Player, letter: Letter) -> bool:
    """Whether a batch of this letter, sent over that session, is stored."""
    batch = {"batch": str(uuid.uuid4()), "channel": process_node.current().channel}

    pipeline.check({**batch, "frames": [[session, player.id, letter.text]]})
    return Envelope.objects.filter(message_id=letter.message_id).exists()
