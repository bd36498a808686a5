"""The client's checks of a delivery before a handler gets it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from atp import (
    ATPEnvelope,
    IAgentIdentity,
    MessageType,
    PrivateKey,
    new_document,
    parse_envelope,
    sign_envelope,
)
from atp.judging.judgement import Verdict
from atp.wire.canonical import parse
from atp.wire.frames import Delivery
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld

Change = Callable[[dict[str, Any]], None]


def written(key: PrivateKey, hub_id: str, *, target: str = "bob", data: Any = "real") -> Any:
    document = new_document(
        identity=IAgentIdentity("alice"),
        message_type=MessageType.NOTIFICATION,
        target=target,
        data=data,
    )
    return parse(sign_envelope(document, key, hub_id=hub_id, now=time.time(), lifetime_seconds=60))[
        "ATP"
    ]


def delivery(document: dict[str, Any], seq: int) -> Delivery:
    value = {"ATP": document}
    return Delivery("mail", seq, value, plain=False, score=80, level="verified")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda d: d["payload"].update(data="forged"), "signature.digest"),
        (lambda d: d["payload"].update(targetAgent="carol"), "signature.audience"),
        (lambda d: d["agentIdentity"].update(id="mallory"), "signature.claims"),
        (lambda d: d.pop("signature"), "signature.missing"),
        (lambda d: d.update(signature="a.b"), "malformed.token"),
        (lambda d: d.update(extra=1), "malformed.envelope"),
        (lambda d: d.update(provenance=[]), None),
    ],
)
async def test_it_refuses_what_was_changed_on_the_way(
    socket_world: SocketWorld, change: Change, code: str | None
) -> None:
    """A refused one goes to the hub's dead letters; the mail after it still arrives."""
    hub, key = socket_world.hub, PrivateKey.generate()
    bob = await socket_world.online("bob")
    got: list[Any] = []

    async def note(envelope: ATPEnvelope) -> None:
        got.append(envelope.data)

    bob.on_message("notification", note)
    document = written(key, hub.id)
    change(document)
    hub.accounts["bob"].pushed["mail"] = 2
    await hub.tell("bob", delivery(document, 1))
    await hub.tell("bob", delivery(written(key, hub.id, data="next"), 2))
    await until(lambda: hub.accounts["bob"].acked["mail"] == 2 and "next" in got)
    expected = [] if code is None else [("mail", 1, code)]
    assert hub.accounts["bob"].refused == expected
    assert got == (["real", "next"] if code is None else ["next"])


async def test_it_refuses_what_was_signed_for_another_hub(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    await socket_world.online("bob")
    hub.accounts["bob"].pushed["mail"] = 1
    await hub.tell("bob", delivery(written(PrivateKey.generate(), "hub-elsewhere"), 1))
    await until(lambda: hub.accounts["bob"].acked["mail"] == 1)
    assert hub.accounts["bob"].refused == [("mail", 1, "signature.audience")]


async def test_it_verifies_senders_whose_key_it_trusts(socket_world: SocketWorld) -> None:
    hub, key = socket_world.hub, PrivateKey.generate()
    bob = await socket_world.online("bob", trusted_keys={"alice": key.public})
    seen: list[ATPEnvelope] = []

    async def note(envelope: ATPEnvelope) -> None:
        seen.append(envelope)

    bob.on_message("notification", note)
    hub.accounts["bob"].pushed["mail"] = 2
    await hub.tell("bob", delivery(written(PrivateKey.generate(), hub.id), 1))
    await hub.tell("bob", delivery(written(key, hub.id), 2))
    await until(lambda: seen)
    assert hub.accounts["bob"].refused == [("mail", 1, "key.unknown")]
    assert seen[0].verify_signature()


async def test_it_relies_on_the_hub_for_other_senders(socket_world: SocketWorld) -> None:
    """The message arrives, and the envelope does not say that its signature was checked here."""
    hub = socket_world.hub
    bob = await socket_world.online("bob")
    seen: list[ATPEnvelope] = []

    async def note(envelope: ATPEnvelope) -> None:
        seen.append(envelope)

    bob.on_message("notification", note)
    hub.accounts["bob"].pushed["mail"] = 1
    await hub.tell("bob", delivery(written(PrivateKey.generate(), hub.id), 1))
    await until(lambda: seen)
    assert not seen[0].verify_signature()
    assert seen[0].get_trust_score() == 80


async def test_it_ignores_an_answer_by_somebody_else(socket_world: SocketWorld) -> None:
    """mallory knows the request's id and answers before bob does."""
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    mallory = socket_world.hub.enrol("mallory")

    async def slow(envelope: ATPEnvelope, respond: Any) -> None:
        document = new_document(
            identity=IAgentIdentity("mallory"),
            message_type=MessageType.RESPONSE,
            target="alice",
            request_id=envelope.request_id,
            data="forged",
        )
        digest = envelope.to_envelope().digest
        signed = sign_envelope(
            document, mallory, hub_id=hub.id, now=time.time(), lifetime_seconds=60, req=digest
        )
        await hub.post("alice", parse_envelope(signed), Verdict("accepted", "", ""))
        await respond("real")

    bob.on_message("request", slow)
    assert (await alice.send_request("bob", {})).data == "real"
