"""A message can say for whom it was sent, and in which trace; the agent signs both."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from atp.agent.receiving import read_claims
from atp.agent.tracing import current_trace
from atp.trust.envelope import new_document, parse_envelope, sign_envelope, verify_signature
from atp.types import IAgentIdentity, MessageType
from tests.atp.envelopes import ALICE, HUB, NOW
from tests.sdk.worlds import SocketWorld

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_it_signs_trace_and_on_behalf_of() -> None:
    document = new_document(
        identity=IAgentIdentity("alice"), message_type=MessageType.NOTIFICATION, target="bob"
    )
    options: dict[str, Any] = {"hub_id": HUB, "now": NOW, "lifetime_seconds": 9}
    raw = sign_envelope(document, ALICE, **options, trace=TRACE, on_behalf_of="jane")
    verified = verify_signature(parse_envelope(raw), ALICE.public, hub_id=HUB)
    assert (verified.trace, verified.on_behalf_of) == (TRACE, "jane")
    bare = parse_envelope(sign_envelope(document, ALICE, **options))
    verified = verify_signature(bare, ALICE.public, hub_id=HUB)
    assert (verified.trace, verified.on_behalf_of) == (None, None)


def test_it_takes_the_trace_of_the_current_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    assert current_trace() is None
    span = SimpleNamespace(is_valid=True, trace_id=int(TRACE, 16))
    api = SimpleNamespace(get_current_span=lambda: SimpleNamespace(get_span_context=lambda: span))
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", api)
    assert current_trace() == TRACE
    span.is_valid = False
    assert current_trace() is None


async def test_it_answers_in_the_trace_of_the_request(socket_world: SocketWorld) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    bob.on_message("request", lambda envelope, respond: respond("yes"))
    await alice.send_request("bob", {}, {"trace": TRACE, "on_behalf_of": "jane"})
    request, answer = (read_claims(one) for one in socket_world.hub.accepted.values())
    assert (request["trace"], request["onBehalfOf"]) == (TRACE, "jane")
    assert (answer["trace"], "onBehalfOf" in answer) == (TRACE, False)
