"""The logger `atp` at DEBUG: frames, states and retries, and nothing that is secret."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from atp import ATPEnvelope
from atp.agent.frame_log import log_frames
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld

SECRET = "the password is 12345"


async def test_it_tells_frames_states_and_retries(
    socket_world: SocketWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "atp")
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")

    async def answer(envelope: ATPEnvelope, respond: Any) -> None:
        await respond({"reply": SECRET})

    bob.on_message("request", answer)
    await alice.send_request("bob", {"question": SECRET})
    await hub.kill()
    await until(lambda: "connects again in" in caplog.text)
    await hub.start()
    await until(lambda: "alice: connected again" in caplog.text)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("atp")]
    for pattern in (
        r"alice: connects to ws://127\.0\.0\.1:\d+/ws/agents/",
        r"alice receives challenge hub=hub-\w+ time=20\S+Z",
        r"alice sends authenticate",
        r"alice receives welcome session=\S+ agent=alice level=verified",
        r"alice: connected to hub-\w+ in session \S+; 0 envelopes without a receipt are sent",
        r"alice sends envelope messageId=\S+ sender=alice messageType=request targetAgent=bob",
        r"alice receives receipt messageId=\S+ status=accepted .*connected=true",
        r"bob receives delivery stream=mail seq=1 .*messageType=request",
        r"bob sends ack stream=mail seq=1",
        r"alice: connects again in \d+\.\d\d s",
    ):
        assert any(re.match(pattern, line) for line in told), pattern
    for secret in (SECRET, "question", "reply", "eyJ", "nonce", "proof", "salt", "signature"):
        assert not any(secret in line for line in told), secret


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        ('{"type":"delivery","attempt":3,"redelivered":true}', "attempt=3 redelivered=true"),
        ('{"type":"receipt","first":{"status":"accepted","entry":4}}', '"status": "accepted"'),
        ('{"type":"authenticate","proof":"eyJ","resumes":"s-1"}', "resumes=s-1"),
    ],
)
def test_it_tells_of_what_is_done_again(
    caplog: pytest.LogCaptureFixture, frame: str, told: str
) -> None:
    caplog.set_level(logging.DEBUG, "atp.frames")
    log_frames("alice", "receives", frame.encode())
    assert told in caplog.text
    assert "eyJ" not in caplog.text


def test_it_bounds_and_escapes_what_the_other_side_writes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "atp.frames")
    log_frames("alice", "receives", b'{"type":"gone\\nERROR forged","code":"' + b"x" * 5000 + b'"}')
    for message in (b"[1,null]", b"no json", b'{"ATP":5}', b'{"ATP":{"payload":[]}}'):
        log_frames("alice", "receives", message)
    assert all("\n" not in r.getMessage() and len(r.getMessage()) < 500 for r in caplog.records)
    assert len(caplog.records) == 6


def test_it_does_no_work_unless_it_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "atp")
    log_frames("alice", "sends", b'{"type":"ack"}')
    assert not caplog.records
