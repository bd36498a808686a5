"""`validate()` where no key of the sender is known: in another process, and behind a hub."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from atp import ATPEnvelope, IAgentIdentity, IATPConfig, IAttestation, PrivateKey, TrustLevel
from tests.sdk.worlds import SocketWorld
from tests.sources import ROOT
from tests.waits import happens

READER = """
import json, sys
from atp import ATPEnvelope
result = ATPEnvelope.from_serialized(sys.stdin.read()).validate()
print(json.dumps([result.valid, [error.split(":")[0] for error in result.errors]]))
"""


def signed() -> ATPEnvelope:
    identity = IAgentIdentity("alice", attestation=IAttestation("tests", TrustLevel.VERIFIED))
    envelope = ATPEnvelope(IATPConfig(identity, TrustLevel.VERIFIED, payload={"text": "hello"}))
    envelope.sign(PrivateKey.generate())
    return envelope


def replaced() -> ATPEnvelope:
    """The envelope of another author, signed anew by somebody with a key of their own."""
    envelope = ATPEnvelope.from_serialized(signed().serialize())
    envelope.payload["data"] = {"text": "forged"}
    envelope.sign(PrivateKey.generate())
    return envelope


@pytest.mark.parametrize("make", [signed, replaced])
def test_rejects_a_signature_that_another_process_cannot_check(make: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READER],
        cwd=ROOT,
        input=make().serialize(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == [False, ["key.unknown"]]


async def test_it_relies_on_the_hub_for_what_it_delivered_unchanged(
    socket_world: SocketWorld,
) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    got: list[ATPEnvelope] = []
    arrived = asyncio.Event()

    async def note(envelope: ATPEnvelope) -> None:
        got.append(envelope)
        arrived.set()

    bob.on_message("notification", note)
    await alice.send_notification("bob", {"text": "hello"})
    await happens(arrived, "the notification")
    (envelope,) = got
    assert not envelope.verify_signature()
    assert envelope.validate().valid
    assert any(warning.startswith("key.unknown") for warning in envelope.validate().warnings)
    envelope.add_provenance({"type": "service", "id": "bob", "action": "read"})
    assert envelope.validate().valid
    envelope.payload["data"]["text"] = "changed"
    assert not envelope.validate().valid
    copy = ATPEnvelope.from_serialized(envelope.serialize())
    assert not copy.validate().valid
