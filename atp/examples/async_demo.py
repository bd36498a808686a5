"""The program `atp-demo`: eight examples of agents that work together in one process.

Each part checks its result. The exit code is 0 only if all results are right.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from atp.client import ATPClient
from atp.envelope_shell import ATPEnvelope
from atp.errors import ATPError, FlowTimeout, HandlerFailed, RecipientUnavailable, TrustLevelTooLow
from atp.memory.transport import InMemoryTransport
from atp.trust.keys import PrivateKey
from atp.types import IAgentIdentity, IAttestation, TrustLevel
from atp.wire.timestamps import format_timestamp

__all__ = ["main"]

DAY_SECONDS: Final = 86_400
CONCURRENT: Final = 50
THINKING_SECONDS: Final = 0.02  # the time of a task, so that tasks overlap
OVERSLEPT_SECONDS: Final = 0.3  # longer than the timeout of the request that shows a timeout
WAIT_SECONDS: Final = 5.0  # for another agent


class DemoError(Exception):
    """The error for a part of the demo whose result is wrong."""


@dataclass
class Cast:
    """The agents of the demo, and what they received."""

    transport: InMemoryTransport
    analyst: ATPClient
    processor: ATPClient
    newcomer: ATPClient
    heard: list[str] = field(default_factory=list)
    busiest: int = 0
    working: int = 0


def main() -> int:
    """Run all eight parts; return the exit code."""
    logging.basicConfig(level=logging.CRITICAL)  # the demo causes failures on purpose
    return asyncio.run(_demo())


async def _demo() -> int:
    cast = _cast()
    failures = 0
    async with cast.analyst, cast.processor, cast.newcomer:
        _teach(cast)
        for number, (title, show) in enumerate(_PARTS.items(), 1):
            print(f"\n{number}. {title}")
            try:
                await show(cast)
            except (DemoError, ATPError) as problem:
                failures += 1
                print(f"   FAILED: {problem}")
        _summary(cast, failures)
    return 1 if failures else 0


def _summary(cast: Cast, failures: int) -> None:
    stats = cast.transport.get_stats()
    print(f"\n{len(_PARTS) - failures} of {len(_PARTS)} shown.", end=" ")
    print(
        f"{stats['messages_accepted']} messages accepted, {stats['deliveries']} delivered,", end=" "
    )
    print(f"{stats['messages_refused']} refused.")
    if not failures:
        print("Next: connect two agents of your own through a hub, see docs/sdk.md.")


# The agents


def _cast() -> Cast:
    transport = InMemoryTransport()
    return Cast(
        transport,
        analyst=_agent(transport, "financial-analyst", TrustLevel.CERTIFIED, PrivateKey.generate()),
        processor=_agent(transport, "data-processor", TrustLevel.VERIFIED, PrivateKey.generate()),
        newcomer=_agent(transport, "newcomer", TrustLevel.UNVERIFIED, "just a string"),
    )


def _agent(
    transport: InMemoryTransport, agent: str, level: TrustLevel, key: PrivateKey | str
) -> ATPClient:
    now = time.time()
    attestation = IAttestation(
        issuer="demo-authority",
        level=level,
        issued_at=format_timestamp(now - 30 * DAY_SECONDS),
        expires_at=format_timestamp(now + 335 * DAY_SECONDS),
    )
    identity = IAgentIdentity(agent, attestation=attestation, capabilities=["demo.tasks"])
    return ATPClient(identity, level, key, transport=transport)


def _teach(cast: Cast) -> None:
    async def work(envelope: ATPEnvelope, respond: Any) -> None:
        task = envelope.payload["data"]["task"]
        if task == "fail":
            raise ValueError("this task can't be done")
        if task == "sleep":
            await asyncio.sleep(OVERSLEPT_SECONDS)
        cast.working += 1
        cast.busiest = max(cast.busiest, cast.working)
        await asyncio.sleep(THINKING_SECONDS)
        cast.working -= 1
        await respond({"task": task, "done_by": "data-processor"})

    def listener(name: str) -> Callable[[ATPEnvelope], None]:
        return lambda envelope: cast.heard.append(f"{name}: {envelope.data}")

    cast.processor.on_message("request", work)
    for client in (cast.analyst, cast.processor, cast.newcomer):
        client.on_message("notification", listener(client.identity.id))
        client.on_message("broadcast", listener(client.identity.id))


# The eight parts


async def _show_signing(cast: Cast) -> None:
    received: list[ATPEnvelope] = []
    work = received.append
    cast.newcomer.on_message("notification", work)
    await cast.analyst.send_notification("newcomer", {"amount": 100})
    await _until(lambda: received, "the message arrives")
    message = received[0]
    _check(message.verify_signature(), "the recipient verifies the sender's Ed25519 signature")
    message.payload["data"] = {"amount": 1_000_000}
    _check(not message.verify_signature(), "after one changed number, it no longer verifies")
    forged = ATPEnvelope.from_serialized(message.serialize())
    try:
        await cast.transport.send_message("financial-analyst", "newcomer", forged)
    except ATPError as problem:
        print(f"   the forged message is refused: {problem.code}")
    else:
        raise DemoError("the forged message was accepted")


async def _show_request(cast: Cast) -> None:
    response = await cast.analyst.send_request("data-processor", {"task": "quarterly report"})
    _check(
        response.data == {"task": "quarterly report", "done_by": "data-processor"},
        f"asked and answered: {response.data}",
    )


async def _show_notification(cast: Cast) -> None:
    receipt = await cast.analyst.send_notification("data-processor", "figures are final")
    _check(receipt.status == "accepted", "the sender has its receipt and does not wait longer")
    await _until(
        lambda: "data-processor: figures are final" in cast.heard, "the recipient has received it"
    )


async def _show_broadcast(cast: Cast) -> None:
    receipt = await cast.processor.broadcast("maintenance at noon")
    _check(receipt.recipients == 2, "one message for two agents")
    await _until(
        lambda: "financial-analyst: maintenance at noon" in cast.heard, "the others received it"
    )
    _check("data-processor: maintenance at noon" not in cast.heard, "the sender did not get it")


async def _show_concurrency(cast: Cast) -> None:
    began = time.perf_counter()
    responses = await asyncio.gather(
        *(cast.analyst.send_request("data-processor", {"task": n}) for n in range(CONCURRENT))
    )
    seconds = time.perf_counter() - began
    _check(
        [response.data["task"] for response in responses] == list(range(CONCURRENT)),
        f"{CONCURRENT} requests at once, each with its own answer, in {seconds:.2f} s",
    )
    _check(cast.busiest > 1, f"up to {cast.busiest} of them were handled at the same time")


async def _show_errors(cast: Cast) -> None:
    requests: tuple[tuple[str, dict[str, Any], str, type[ATPError]], ...] = (
        ("sleep", {"timeout": 100}, "data-processor", FlowTimeout),
        ("fail", {}, "data-processor", HandlerFailed),
        ("any", {}, "nobody-here", RecipientUnavailable),
    )
    for task, options, target, expected in requests:
        try:
            await cast.analyst.send_request(target, {"task": task}, options)
        except expected as problem:
            print(f"   {problem.code}: {problem.detail}")
        else:
            raise DemoError(f"the request {task!r} should have failed with {expected.code}")


async def _show_trust(cast: Cast) -> None:
    scores = {
        client.identity.id: client.get_trust_status()["score"]
        for client in (cast.analyst, cast.processor, cast.newcomer)
    }
    print(f"   scores: {', '.join(f'{agent} {score}' for agent, score in scores.items())}")
    _check(
        scores["financial-analyst"] > scores["data-processor"] > scores["newcomer"],
        "agents with a better attestation and a better key score higher",
    )
    try:
        await cast.analyst.send_request("newcomer", {}, {"requires_trust": "verified"})
    except TrustLevelTooLow as problem:
        print(f"   {problem.code}: {problem.detail}")
    else:
        raise DemoError("an unverified agent got what only verified ones may get")


async def _show_provenance(cast: Cast) -> None:
    trail: list[dict[str, Any]] = []

    async def audited(envelope: ATPEnvelope, respond: Any) -> None:
        for action in ("validate-access", "completed-analysis"):
            envelope.add_provenance({"type": "service", "id": "compliance", "action": action})
        trail.extend(envelope.provenance)
        await respond({"audit_trail": envelope.provenance})

    cast.processor.on_message("request", audited)
    response = await cast.analyst.send_request("data-processor", {"task": "audited"})
    _check(
        response.data["audit_trail"] == trail and len(trail) == 2,
        "each step was added with its own signature:",
    )
    for entry in trail:
        print(f"     {entry['timestamp']} {entry['agent']}: {entry['action']}")
    history = cast.transport.get_message_history()
    _check(
        [message.from_agent for message in history[-2:]] == ["financial-analyst", "data-processor"],
        f"the transport remembers {len(history)} messages; the last one is this answer",
    )


_PARTS: Final[dict[str, Callable[[Cast], Awaitable[None]]]] = {
    "Messages are signed, and signatures verified": _show_signing,
    "A request is answered": _show_request,
    "A notification needs no answer": _show_notification,
    "A broadcast reaches all other agents": _show_broadcast,
    "Requests are handled at the same time": _show_concurrency,
    "Errors are reported to the sender": _show_errors,
    "Trust is scored and demanded": _show_trust,
    "Each step of a message is recorded": _show_provenance,
}


def _check(happened: bool, what: str) -> None:
    if not happened:
        raise DemoError(f"this did not happen: {what}")
    print(f"   {what}")


async def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"this did not happen: {what}")
        await asyncio.sleep(THINKING_SECONDS)
    print(f"   {what}")


if __name__ == "__main__":
    sys.exit(main())
