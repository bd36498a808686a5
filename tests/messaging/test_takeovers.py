"""An agent that comes back while its older session is being closed: neither waits for the other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connection
from pytest_django.fixtures import Settings

from atp.errors import ATPError
from atp.wire.canonical import b64url
from messaging.models import Presence, Session
from messaging.node.process_node import process_node
from messaging.sessions.proofs import LoginRequest
from messaging.sessions.sessions import Opened, close_sessions, open_sessions
from tests.cast import Player, make_agent, prove
from tests.conftest import LiveHub
from tests.waits import result

T = TypeVar("T")

AGENTS = 12
ROUNDS = 6


def test_it_opens_sessions_while_the_older_ones_are_closed(hub: LiveHub) -> None:
    players = [make_agent() for _ in range(AGENTS)]
    older = _open(players)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(ROUNDS):
            closings = [(o.agent, o.session, "session.closed") for o in older]
            opening = threads.submit(_here, _open, players)
            result(threads.submit(_here, close_sessions, closings), "the sessions being closed")
            older = result(opening, "the sessions being opened")

    ids = [player.id for player in players]
    present = Presence.objects.filter(agent__in=ids).values_list("session_id", flat=True)
    still_open = Session.objects.filter(agent__in=ids, closed_at=None).values_list("id", flat=True)
    assert set(present) == set(still_open) == {uuid.UUID(one.session) for one in older}


def _open(players: Sequence[Player]) -> list[Opened]:
    opened = open_sessions([_login(player) for player in players], process_node.current().id)
    assert all(isinstance(one, Opened) for one in opened)
    return [one for one in opened if isinstance(one, Opened)]


def test_it_counts_the_logins_of_an_agent_over_all_nodes(hub: LiveHub, settings: Settings) -> None:
    """Two nodes open sessions at once: the limit counts both, because they count one by one."""
    settings.ATP_LOGINS_PER_MINUTE = 30
    player = make_agent()
    with ThreadPoolExecutor(4) as threads:
        batches = [threads.submit(_here, _answers, player, 15) for _ in range(4)]
        answers = [one for batch in batches for one in result(batch, "the logins")]
    welcomed = [one for one in answers if isinstance(one, Opened)]
    refused = [one.code for one in answers if isinstance(one, ATPError)]
    assert len(welcomed) == 30
    assert refused == ["flow.too_many"] * 30
    assert Session.objects.filter(agent_id=player.id).count() == 30


def _answers(player: Player, count: int) -> list[Opened | ATPError]:
    return open_sessions([_login(player) for _ in range(count)], process_node.current().id)


def _login(player: Player) -> LoginRequest:
    nonce = b64url(uuid.uuid4().bytes)
    proof = prove(player, url="ws://hub.test/ws/agents/", nonce=nonce)
    return LoginRequest(proof, nonce, host="hub.test", path="/ws/agents/", remote_address="")


def _here(work: Callable[..., T], *args: Any) -> T:
    try:
        return work(*args)
    finally:
        connection.close()
