"""Demo mode: string keys and claimed attestations, in memory only."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from atp import (
    ATPClient,
    ATPEnvelope,
    IAgentIdentity,
    IATPConfig,
    IAttestation,
    InMemoryTransport,
    PrivateKey,
    TrustLevel,
)
from atp.errors import (
    KeyUnacceptable,
    MalformedKey,
    SignatureInvalid,
    TrustLevelTooLow,
)
from atp.memory.keys import DemoKey, read_key
from atp.wire.timestamps import parse_timestamp
from tests.sdk.waiting import until

DAY = parse_timestamp("2025-07-01T00:00:00Z")
DEMO_CEILING = 39  # docs/design/trust.md#the-score


@pytest.fixture
def transport() -> InMemoryTransport:
    transport = InMemoryTransport()
    transport.reset()
    transport.clock = lambda: DAY
    return transport


def agent(
    transport: InMemoryTransport,
    agent_id: str,
    key: Any,
    *,
    level: TrustLevel = TrustLevel.CERTIFIED,
    ends: str = "2026-01-01T00:00:00Z",
) -> ATPClient:
    attestation = IAttestation("authority", level, "2025-01-01T00:00:00Z", ends)
    identity = IAgentIdentity(agent_id, "public", attestation, ["demo"])
    return ATPClient(identity, level, key, transport=transport)


@pytest.mark.parametrize("key", ["a", "my-private-key", "ключ", "x" * 5000])
async def test_it_signs_with_any_string(transport: InMemoryTransport, key: str) -> None:
    seen: list[bool] = []
    async with agent(transport, "alice", key) as alice, agent(transport, "bob", "b") as bob:
        bob.on_message("notification", lambda envelope: seen.append(envelope.verify_signature()))
        await alice.send_notification("bob", {})
        await until(lambda: seen)
    assert seen == [True]


async def test_it_lets_agents_without_a_key_speak(transport: InMemoryTransport) -> None:
    async with agent(transport, "alice", None) as alice, agent(transport, "bob", None) as bob:
        bob.on_message("request", lambda envelope, respond: respond(envelope.verify_signature()))
        response = await alice.send_request("bob", {})
    assert response.success
    assert response.data is False  # nothing was signed, so nothing verifies


async def test_it_holds_demo_keys_under_their_ceiling(transport: InMemoryTransport) -> None:
    async with (
        agent(transport, "alice", "string") as alice,
        agent(transport, "bob", PrivateKey.generate()) as bob,
    ):
        assert alice.get_trust_status()["score"] == DEMO_CEILING
        assert bob.get_trust_status()["score"] > 85


async def test_it_believes_an_attestation_only_while_it_is_valid(
    transport: InMemoryTransport,
) -> None:
    expired = agent(transport, "bob", "b", ends="2025-06-30T00:00:00Z")
    async with agent(transport, "alice", "a") as alice, expired as bob:
        bob.on_message("request", lambda envelope, respond: respond(None))
        assert (await alice.send_request("bob", {})).success
        with pytest.raises(TrustLevelTooLow):
            await alice.send_request("bob", {}, {"requires_trust": "sandboxed"})


async def test_it_believes_no_more_than_what_is_attested(transport: InMemoryTransport) -> None:
    attestation = IAttestation("authority", TrustLevel.VERIFIED)
    boastful = ATPClient(
        IAgentIdentity("bob", attestation=attestation), "certified", "b", transport=transport
    )
    async with agent(transport, "alice", "a") as alice, boastful as bob:
        bob.on_message("request", lambda envelope, respond: respond(None))
        with pytest.raises(TrustLevelTooLow):
            await alice.send_request("bob", {}, {"requires_trust": "certified"})


def test_it_keeps_the_string_to_itself() -> None:
    key = DemoKey("my-private-key")
    envelope = ATPEnvelope(
        IATPConfig(IAgentIdentity("alice"), TrustLevel.VERIFIED, private_key="my-private-key")
    )
    shown = f"{key!r} {key.public!r} {envelope!r} {vars(envelope)}"
    assert "my-private-key" not in shown
    assert repr(key.public._raw) not in shown
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(KeyUnacceptable):
        key.to_pem()


def test_it_tells_strings_apart() -> None:
    signature = DemoKey("one").sign(b"data")
    DemoKey("one").public.verify(b"data", signature, "HS256")
    with pytest.raises(SignatureInvalid):
        DemoKey("other").public.verify(b"data", signature, "HS256")


def test_it_reads_the_keys_that_a_client_may_be_given() -> None:
    key = PrivateKey.generate()
    for given in (key, key.to_pem(), key.to_pem().decode()):
        read = read_key(given)
        assert read is not None
        assert read.kid == key.kid
    assert read_key(None) is None
    assert isinstance(read_key("-----BEGINNING"), DemoKey)
    with pytest.raises(MalformedKey):
        read_key("-----BEGIN PRIVATE KEY-----\nnone\n-----END PRIVATE KEY-----")
    with pytest.raises(KeyUnacceptable):
        read_key("")


async def test_it_does_not_warn_of_an_answer(
    transport: InMemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    async with agent(transport, "alice", "a") as alice, agent(transport, "bob", "b") as bob:
        bob.on_message("request", lambda envelope, respond: respond(None))
        assert (await alice.send_request("bob", {})).success
    assert "without an answer" not in caplog.text
