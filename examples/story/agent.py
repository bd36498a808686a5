"""One agent of the story, in its own process: `python -m examples.story.agent FILE`.

The narrator writes orders to its standard input, one line of JSON each, and reads one line of JSON
with each result. The agent uses `ATPClient` over a WebSocket, as any agent does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from atp.agent.identity_file import read_identity_file
from atp.client import ATPClient
from atp.envelope_shell import ATPEnvelope
from atp.errors import ATPError
from atp.wire.canonical import parse, serialize
from atp.wire.frames import Receipt
from examples.story.wire import Forger, TappedTransport

__all__ = ["StoryAgent", "main"]

WAIT_SECONDS: Final = 15.0  # for an act of another agent or an officer
POLL_SECONDS: Final = 0.02


class StoryAgent:
    """An agent that carries out orders, and stores the messages that it gets."""

    def __init__(self, identity: str) -> None:
        file = read_identity_file(identity)
        self._wire = TappedTransport(file)
        self._forger = Forger(file, clock=self._wire.clock)
        self._client = ATPClient.from_identity_file(identity, transport=self._wire)
        self._client.on_message("request", self._on_request)
        self._client.on_message("notification", self._on_mail)
        self._client.on_message("broadcast", self._on_mail)
        self._heard: list[dict[str, Any]] = []
        self._working = self._busiest = 0

    async def do(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out an order; return its result with the receipts of all sent envelopes."""
        arguments = {name: value for name, value in order.items() if name not in {"id", "do"}}
        deed: Callable[..., Awaitable[dict[str, Any]]] = _DEEDS[order["do"]]
        before = set(self._wire.traffic.sent)
        try:
            outcome = await deed(self, **arguments)
        except ATPError as problem:
            outcome = {"error": problem.code, "detail": problem.detail}
        return {"id": order["id"], **outcome, "receipts": await self._receipts(before)}

    async def close(self) -> None:
        """Disconnect from the hub."""
        await self._client.disconnect()

    # --- Orders --------------------------------------------------------------------------------

    async def _connect(self) -> dict[str, Any]:
        await self._client.connect()
        return self._client.get_trust_status()

    async def _request(self, to: str, data: Any, **options: Any) -> dict[str, Any]:
        response = await self._client.send_request(to, data, options)
        return {"data": response.data, "score": response.trust_score}

    async def _requests(self, to: str, count: int, takes: float) -> dict[str, Any]:
        """Send `count` requests at once, each of which takes the recipient `takes` seconds."""
        began = time.perf_counter()
        cases = ({"case": n, "takes": takes} for n in range(count))
        responses = await asyncio.gather(*(self._client.send_request(to, case) for case in cases))
        answered = [response.data["case"] for response in responses]
        return {"cases": answered, "seconds": time.perf_counter() - began}

    async def _notify(self, to: str, data: Any, **options: Any) -> dict[str, Any]:
        await self._client.send_notification(to, data, options)
        return {}

    async def _broadcast(self, data: Any) -> dict[str, Any]:
        await self._client.broadcast(data)
        return {}

    async def _listen(self, count: int) -> dict[str, Any]:
        """Wait until it has got `count` notifications and broadcasts."""
        await _until(lambda: len(self._heard) >= count)
        return {"heard": self._heard}

    async def _tell(self) -> dict[str, Any]:
        return {"busiest": self._busiest, "heard": self._heard, **self._client.get_trust_status()}

    async def _wait_for_the_end(self) -> dict[str, Any]:
        """Wait until the client does not connect again."""
        await _until(lambda: self._client.get_trust_status()["ended"] is not None)
        return {"ended": self._client.get_trust_status()["ended"], "at": time.time()}

    async def _forge(self, how: str, to: str, name: str = "") -> dict[str, Any]:
        """Send a forged envelope."""
        match how:
            case "key":
                envelope = self._forger.with_another_key(to)
            case "name":
                envelope = self._forger.in_the_name_of(name, to)
            case _:
                envelope = self._forger.changed_after_signing(to)
        await self._wire.say(envelope)
        return {}

    async def _replay(self, message_id: str, times: int) -> dict[str, Any]:
        """Send the same bytes of its own envelope again, `times` times."""
        traffic = self._wire.traffic
        so_far = len(traffic.receipts[message_id])
        for _ in range(times):
            await self._wire.say(traffic.sent[message_id])
        answers = await traffic.receipts_of(message_id, count=so_far + times)
        return {"answers": [_told(answer) for answer in answers[so_far:]]}

    async def _replay_stolen(self, sender: str) -> dict[str, Any]:
        """Send the last envelope that `sender` sent to this agent, unchanged."""
        stolen = next(
            value
            for value in reversed(self._wire.traffic.delivered)
            if value["ATP"]["agentIdentity"]["id"] == sender
        )
        await self._wire.say(serialize(stolen))
        return {}

    async def _reuse(self, message_id: str) -> dict[str, Any]:
        """Send other content with a messageId that was used before."""
        traffic = self._wire.traffic
        so_far = len(traffic.receipts[message_id])
        await self._wire.say(self._forger.with_other_content(traffic.sent[message_id]))
        answers = await traffic.receipts_of(message_id, count=so_far + 1)
        return {"answers": [_told(answers[-1])]}

    # --- Messages from others -----------------------------------------------------------------

    async def _on_request(self, envelope: ATPEnvelope, respond: Any) -> None:
        self._working += 1
        self._busiest = max(self._busiest, self._working)
        data = envelope.payload["data"]
        await asyncio.sleep(data.get("takes", 0.05))  # stands for some work
        self._working -= 1
        await respond({**data, "done_by": self._client.identity.id})

    def _on_mail(self, envelope: ATPEnvelope) -> None:
        self._heard.append(
            {
                "messageId": envelope.message_id,
                "sender": envelope.agent_identity.id,
                "score": envelope.get_trust_score(),
                "data": envelope.payload["data"],
            }
        )

    async def _receipts(self, before: set[str]) -> list[dict[str, Any]]:
        """Return the receipts of envelopes sent since, without responses."""
        traffic = self._wire.traffic
        ours = [m for m in traffic.sent if m not in before and traffic.types[m] != "response"]
        return [_told((await traffic.receipts_of(message_id))[-1]) for message_id in ours]


def main() -> int:
    """Carry out the orders on standard input until it ends."""
    logging.basicConfig(level=logging.CRITICAL)  # refusals are part of the story
    return asyncio.run(_serve(StoryAgent(sys.argv[1])))


async def _serve(agent: StoryAgent) -> int:
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        print(json.dumps(await agent.do(parse(line))), flush=True)
    await agent.close()
    return 0


async def _until(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most `WAIT_SECONDS`; the narrator checks whether it is true."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return
        await asyncio.sleep(POLL_SECONDS)


def _told(receipt: Receipt) -> dict[str, Any]:
    return {
        "messageId": receipt.message_id,
        "status": receipt.status,
        "code": receipt.code,
        "detail": receipt.detail,
        "score": receipt.trust_score,
        "recipients": receipt.recipients,
        "entry": receipt.entry,
    }


_DEEDS: Final[Mapping[str, Callable[..., Awaitable[dict[str, Any]]]]] = {
    "connect": StoryAgent._connect,
    "request": StoryAgent._request,
    "requests": StoryAgent._requests,
    "notify": StoryAgent._notify,
    "broadcast": StoryAgent._broadcast,
    "listen": StoryAgent._listen,
    "tell": StoryAgent._tell,
    "wait_for_the_end": StoryAgent._wait_for_the_end,
    "forge": StoryAgent._forge,
    "replay": StoryAgent._replay,
    "replay_stolen": StoryAgent._replay_stolen,
    "reuse": StoryAgent._reuse,
}


if __name__ == "__main__":
    sys.exit(main())
