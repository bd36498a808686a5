"""Every Python block of the seed's README does what the README says, run as written.

What a block takes for granted (other agents, names, a day on which its attestations were valid)
is supplied; `seed_readme.ADAPTED` is the list of blocks that had to be changed.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

import atp
from atp import (
    ATPClient,
    ATPEnvelope,
    IAgentIdentity,
    IAttestation,
    InMemoryTransport,
    PrivateKey,
    TrustLevel,
)
from atp.errors import RecipientUnavailable
from atp.wire.timestamps import parse_timestamp
from tests.sdk.seed_readme import ADAPTED, adapted, blocks, run, run_program
from tests.sdk.waiting import until

VALID_DAY = parse_timestamp("2025-07-01T12:00:00Z")  # half way through the README's attestations


class Stage:
    """The agents that a block expects to find, in the transport that it uses."""

    def __init__(self) -> None:
        self.transport = InMemoryTransport.get_instance()
        self.transport.reset()
        self.transport.clock = lambda: VALID_DAY
        self._clients: list[ATPClient] = []

    async def agent(
        self,
        agent_id: str,
        *,
        level: TrustLevel = TrustLevel.VERIFIED,
        key: PrivateKey | str = "another string",
    ) -> ATPClient:
        """A connected agent; with a real key its score can pass the ceiling of demo keys."""
        attestation = IAttestation("tests", level, "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
        identity = IAgentIdentity(agent_id, attestation=attestation, capabilities=["tests"])
        client = ATPClient(identity, level, key)
        await client.connect()
        return self.ends(client)

    async def answering(self, agent_id: str, answer: Any) -> ATPClient:
        """A connected agent that answers each request with `answer(data)`."""
        client = await self.agent(agent_id)
        client.on_message("request", lambda envelope, respond: respond(answer(envelope.data)))
        return client

    def ends(self, client: ATPClient) -> ATPClient:
        """Disconnect it after the test."""
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.disconnect(timeout_seconds=0.2)
        self.transport.reset()


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    await stage.close()


def written(title: str) -> str:
    """The block below a heading, as it is written (but see `ADAPTED`)."""
    return adapted(title, blocks()[title])


async def created(stage: Stage) -> dict[str, Any]:
    """The names that "Creating an Agent" leaves behind, its client connected."""
    names = await run(written("Creating an Agent"), {})
    await stage.ends(names["client"]).connect()
    return names


def test_it_runs_every_block() -> None:
    tested = set(re.findall(r'written\("([^"]+)"\)', Path(__file__).read_text()))
    assert tested == set(blocks())
    assert set(ADAPTED) == {"WebSocket Integration", "ATPClient"}


async def test_it_runs_the_quick_start(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    await stage.answering("target-agent", lambda data: {"done": data["task"]})
    await asyncio.to_thread(run_program, written("Basic Usage"))
    assert "Response: {'done': 'process-data'}\nTrust Score: 39\n" in capsys.readouterr().out


async def test_it_tells_a_newcomer_why_the_quick_start_alone_gets_no_answer(stage: Stage) -> None:
    with pytest.raises(RecipientUnavailable) as caught:
        await asyncio.to_thread(run_program, written("Basic Usage"))
    told = str(caught.value)
    assert "no agent 'target-agent' is connected" in told
    assert "create a second ATPClient with that id" in told


async def test_it_creates_an_agent(stage: Stage) -> None:
    names = await created(stage)
    assert names["client"].get_trust_status()["agent"] == "financial-analyzer-001"
    assert names["client"].get_trust_status()["level"] == "certified"


async def test_it_asks_with_a_timeout_and_a_demand_for_trust(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[ATPEnvelope] = []
    processor = await stage.agent("data-processor")

    async def answer(envelope: ATPEnvelope, respond: Any) -> None:
        asked.append(envelope)
        await respond({"reports": 4})

    processor.on_message("request", answer)
    await run(written("Async Request/Response"), await created(stage))
    assert asked[0].payload["requiresTrust"] == "verified"
    assert asked[0].data["data_source"] == "financial-database"
    assert "Analysis result: {'reports': 4}\nTrust score: 39" in capsys.readouterr().out


async def test_it_handles_messages(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    async def process_data(data: Any) -> Any:
        return sum(data)

    names = await created(stage)
    names |= {"process_data": process_data, "datetime": datetime}
    await run(written("Message Handlers"), names)
    caller = await stage.agent("caller")
    response = await caller.send_request("financial-analyzer-001", [1, 2, 3])
    assert (response.data["status"], response.data["result"]) == ("completed", 6)
    await caller.send_notification("financial-analyzer-001", "note this")
    printed = ""

    def heard() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return "Notification: note this" in printed

    await until(heard)
    assert "Received request: [1, 2, 3]" in printed


async def test_it_broadcasts(stage: Stage) -> None:
    names, other = await created(stage), await stage.agent("other")
    heard: list[Any] = []
    other.on_message("broadcast", lambda envelope: heard.append(envelope.data))
    await run(written("Broadcast Communication"), names)
    await until(lambda: heard)
    assert heard[0]["message"] == "Maintenance window starting"


async def test_it_asks_several_agents_at_once(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    for agent in ("agent1", "agent2", "agent3"):
        await stage.answering(agent, lambda data, agent=agent: f"{data['task']} by {agent}")
    await run(written("Concurrent Processing"), {**await created(stage), "asyncio": asyncio})
    printed = capsys.readouterr().out
    assert [f"Task {n}: task{n} by agent{n}" in printed for n in (1, 2, 3)] == [True] * 3


async def test_it_tries_again_after_a_failure(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    tries: list[Any] = []

    def answer(data: Any) -> Any:
        tries.append(data)
        if len(tries) == 1:
            raise RuntimeError("not yet")
        return "at last"

    await stage.answering("reliable-agent", answer)
    names = {**await created(stage), "asyncio": asyncio}
    await run(written("Error Handling with Retry"), names)
    assert names["response"].data == "at last"
    assert "Attempt 1 failed: handler.failed" in capsys.readouterr().out


async def test_it_watches_trust_scores(stage: Stage) -> None:
    async def process_request(data: Any) -> Any:
        return data["n"] + 1

    names = {**await created(stage), "process_request": process_request}
    await run(written("Trust Score Monitoring"), names)
    demo = await stage.agent("demo-caller")
    refused = await demo.send_request("financial-analyzer-001", {"n": 1})
    assert refused.data == {"error": "Insufficient trust level", "required": 70, "actual": 39}
    real = await stage.agent("real-caller", key=PrivateKey.generate())
    taken = await real.send_request("financial-analyzer-001", {"n": 1})
    assert taken.data == {"status": "success", "data": 2}


async def test_it_guards_financial_data(stage: Stage) -> None:
    async def analyse(data: Any) -> Any:
        return {"total": sum(data["figures"])}

    names = vars(atp) | {"perform_financial_analysis": analyse, "datetime": datetime}
    await run(written("Financial Data Processing Agent"), names)
    stage.ends(await names["financial_agent"]())
    low = await stage.agent("low", level=TrustLevel.VERIFIED, key=PrivateKey.generate())
    refused = await low.send_request("financial-analyzer-001", {"figures": [1]})
    assert refused.data["error"] == "Insufficient trust for financial data access"
    assert refused.data["actual_trust"] < refused.data["required_trust"] == 85
    high = await stage.agent("high", level=TrustLevel.CERTIFIED, key=PrivateKey.generate())
    taken = await high.send_request("financial-analyzer-001", {"figures": [1, 2]})
    assert taken.data["analysis"] == {"total": 3}


async def test_it_keeps_an_audit_trail_of_healthcare_data(stage: Stage) -> None:
    async def process(data: Any) -> Any:
        return f"processed {data['patient']}"

    names = vars(atp) | {"process_healthcare_data": process}
    await run(written("Healthcare Data Agent"), names)
    stage.ends(await names["healthcare_agent"]())
    clinic = await stage.agent("clinic")
    response = await clinic.send_request("healthcare-processor-001", {"patient": "p-1"})
    trail = response.data["audit_trail"]
    assert response.data["result"] == "processed p-1"
    assert [(entry["id"], entry["action"]) for entry in trail] == [
        ("hipaa-compliance-checker", "validate-patient-data-access"),
        ("patient-data-processing", "completed-data-analysis"),
    ]
    assert {entry["agent"] for entry in trail} == {"healthcare-processor-001"}
    assert {parse_timestamp(entry["timestamp"]) for entry in trail} == {VALID_DAY}


@pytest.mark.filterwarnings(r"ignore:\s*on_event is deprecated:DeprecationWarning")
async def test_it_serves_a_web_api(stage: Stage) -> None:
    await stage.answering("data-processor", lambda data: {"rows": len(data["data"]["rows"])})
    names = await run(written("Express.js Integration"), {})
    app = names["app"]
    stage.ends(names["client"])
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://gateway.test"
        ) as web,
    ):
        answer = await web.post("/api/process-data", json={"rows": [1, 2]})
        assert answer.json() == {"success": True, "result": {"rows": 2}}
        status = (await web.get("/api/status")).json()
        assert status == {"connected": True, "trust_level": "certified", "trust_score": 39}
        stage.transport.unregister_agent("data-processor")
        failed = await web.post("/api/process-data", json={"rows": []})
        assert failed.status_code == 500
        assert "data-processor" in failed.json()["detail"]


async def test_it_bridges_websockets(stage: Stage) -> None:
    await stage.answering("target-agent", lambda data: {"got": data})
    names = await run(written("WebSocket Integration"), {"asyncio": asyncio})
    async with names["server"] as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://localhost:{port}") as socket:
            async with asyncio.timeout(20):
                await socket.send('{"n": 1}')
                answer = json.loads(await socket.recv())
                await socket.send("no JSON")
                refusal = json.loads(await socket.recv())
    assert answer == {"success": True, "data": {"got": {"n": 1}}}
    assert not refusal["success"]
    assert "websocket-gateway" not in stage.transport.get_connected_agents()


async def test_it_has_the_client_of_the_reference(stage: Stage) -> None:
    await stage.answering("target", lambda data: {"echo": data})
    identity = IAgentIdentity(id="reference", public_key="reference-public-key")
    handled: list[Any] = []
    names: dict[str, Any] = {
        "ATPClient": ATPClient,
        "identity": identity,
        "trust_level": TrustLevel.UNVERIFIED,
        "target_agent": "target",
        "payload": {"n": 1},
        "options": {"timeout": 5000},
        "message_type": "notification",
        "handler": lambda envelope: handled.append(envelope.data),
    }
    await run(written("ATPClient"), names)
    stage.ends(names["client"])
    assert names["response"].data == {"echo": {"n": 1}}
    assert names["status"]["connected"]
    other = await stage.agent("other")
    await other.send_notification("reference", "handled")
    await until(lambda: handled)


async def test_it_has_the_envelope_of_the_reference() -> None:
    names: dict[str, Any] = {
        "ATPEnvelope": ATPEnvelope,
        "private_key": "some private key",
        "entry": {"type": "service", "id": "checker", "action": "checked"},
    }
    await run(written("ATPEnvelope"), names)
    assert names["is_valid"] is True
    assert names["validation"].valid
    assert 0 <= names["trust_score"] <= 39
    assert names["meets_threshold"] is False
    restored = names["restored"]
    assert restored.serialize() == names["serialized"]
    assert restored.verify_signature()
    assert [step["action"] for step in restored.provenance] == ["checked"]


async def test_it_has_the_transport_of_the_reference(stage: Stage) -> None:
    received: asyncio.Queue[ATPEnvelope] = asyncio.Queue()
    stage.transport.register_agent("to", received)
    envelope = ATPEnvelope(atp.IATPConfig(IAgentIdentity("from"), TrustLevel.VERIFIED))
    names: dict[str, Any] = {
        "InMemoryTransport": InMemoryTransport,
        "agent_id": "passing-by",
        "message_queue": asyncio.Queue(),
        "from_agent": "from",
        "to_agent": "to",
        "envelope": envelope,
    }
    await run(written("InMemoryTransport"), names)
    assert [received.get_nowait().message_id for _ in range(2)] == [envelope.message_id] * 2
    assert [message.to_agent for message in names["history"]] == ["to", "*"]
    assert names["agents"] == ["to"]
    assert names["stats"]["messages_accepted"] == 2
    assert names["stats"]["broadcasts"] == 1


async def test_it_has_the_types_of_the_reference() -> None:
    names = await run(written("Type Definitions"), {})
    imported = {name for name in names if name != "__builtins__"}
    assert len(imported) == 13
    assert imported <= set(atp.__all__)
