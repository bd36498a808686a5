"""A process with several agents that send to all others until the phase changes to quiet.

    python -m tests.crash.agents var/crash/agents-0.json

The file is a `Part`. A killed process is started again with the same file. Then it uses the same
identities, knows only their keys, and appends to the same logs. At SIGTERM, the agents finish what
they handle, and hand back the rest.

What a handler does with a message is in the message: its mood.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from atp import ATPClient, ATPEnvelope, ATPError, Reject, Retry
from atp.agent.identity_file import read_identity_file
from atp.transports.websocket import WebSocketTransport
from tests.crash.log import AGAIN, CUT, DONE, FAILED, UNWANTED, WRONG, Event, Kind, LogWriter
from tests.crash.recorder import RecordingTransport

SHORT_LIFE_SECONDS = 6  # of some notifications, so that some expire before delivery
MOST_UNDER_WAY = 64  # envelopes of one agent; beyond it, the agent sends less than its rate
BURST = 25  # notifications to one agent at once, to check their order
NEWS = 4  # broadcasts at once
AWAY_SECONDS = (0.2, 4.0)
LOOK_SECONDS = 0.1
AGAIN_SECONDS = 0.5

DRAIN_SECONDS = 3.0
RETRY_SECONDS = 0.2  # the pause after the first failure of a handler; each later one is longer
SLOW_SECONDS = (0.1, 2.0)
FAILING_ATTEMPTS = {"shaky": 1, "later": 2, "broken": 99}  # that fail, of a mood
KILLED = 77  # the exit status of a process that a message has killed

TURNS: dict[str, float] = {
    "notify": 50, "ask": 34, "broadcast": 4, "hurry": 6, "burst": 2, "news": 1, "away": 1,
    "murder": 0.02,
}  # fmt: skip
# Of the moods of notifications and requests. A message in the mood "deadly" kills its recipient's
# process each time, until it is a dead letter.
MOODS = {"": 80, "slow": 12, "shaky": 3, "later": 2, "unwanted": 2, "broken": 1}
REQUEST_MOODS = {"": 84, "slow": 12, "shaky": 3, "unwanted": 1}


@dataclass(frozen=True, slots=True)
class Part:
    """The orders of one process. `phase` is the path of the file with the current `Phase`."""

    identities: list[str]
    everyone: list[str]
    url: str
    logs: str
    phase: str
    seed: int
    turns: dict[str, float]
    patience_ms: int

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Phase:
    """The order for all agents: "run", "quiet" or "end"; each sends `rate` envelopes a second."""

    name: str
    rate: float = 1.0

    def write(self, path: Path) -> None:
        """Replace the file in one step, so that readers see the old or the new phase."""
        aside = path.with_suffix(".new")
        aside.write_text(f"{self.name} {self.rate}", encoding="utf-8")
        aside.replace(path)


class WrongAnswer(Exception):
    """An answer to another request."""


class Agent:
    """One agent, with its log, its client and its open calls."""

    def __init__(self, part: Part, identity: str, chance: random.Random, *, run: int) -> None:
        file = read_identity_file(Path(identity))
        self.name = file.agent
        self._part = part
        self._chance = chance
        self._others = [name for name in part.everyone if name != file.agent]
        self._log = LogWriter(Path(part.logs) / f"{file.agent}.jsonl", run)
        transport = WebSocketTransport(part.url, hub_id=file.hub_id, hub_key=file.hub_key)
        self._client = ATPClient.from_identity_file(
            identity,
            transport=RecordingTransport(transport, self._log),
            retry_seconds=RETRY_SECONDS,
        )
        self._client.on_message("request", self._answer)
        self._client.on_message("notification", self._handle)
        self._client.on_message("broadcast", self._handle)
        self._options = {"timeout": part.patience_ms}
        self._under_way: set[asyncio.Task[None]] = set()
        self._turns = {
            "notify": self._notify,
            "ask": self._ask,
            "broadcast": self._broadcast,
            "hurry": self._hurry,
            "burst": self._burst,
            "news": self._news,
            "away": self._go_away,
            "murder": self._murder,
        }

    async def live(self) -> None:
        """Send, be quiet or end, as the phase says."""
        self._log.write(Event(Kind.BEGAN))
        await self._come()
        names, weights = zip(*self._part.turns.items(), strict=True)
        while (phase := _phase(self._part)).name == "run":
            await asyncio.sleep(self._chance.expovariate(phase.rate))
            if len(self._under_way) < MOST_UNDER_WAY:
                await self._turns[self._chance.choices(names, weights)[0]]()
            await self._come()
        await self._settle()
        while _phase(self._part).name != "end":
            await asyncio.sleep(LOOK_SECONDS)
            await self._come()
        await self._client.disconnect()
        self._log.close()

    async def leave(self) -> None:
        """Disconnect in order, as at SIGTERM, after `live` was cancelled."""
        self._log.write(Event(Kind.LEAVING))
        await self._client.disconnect(timeout_seconds=DRAIN_SECONDS)

    async def _come(self) -> None:
        """Connect again and again until it works: the SDK does not repeat a first failure."""
        while True:
            status = self._client.get_trust_status()
            if status["session"] is not None and status["ended"] is None:
                return
            if status["ended"] is not None:
                self._log.write(Event(Kind.ENDED, code=status["ended"]))
                await self._client.disconnect(timeout_seconds=0)
            try:
                await self._client.connect()
            except ATPError:
                await asyncio.sleep(AGAIN_SECONDS)

    async def _settle(self) -> None:
        """Wait until all open calls have ended, and until each other agent got a message.

        Then log `settled`, once and last: from then on this agent waits for nothing.
        """
        while self._under_way:
            await asyncio.wait(self._under_way)
        for other in self._others:
            while not await self._try("last word", self._send(other, {"last": self.name})):
                await asyncio.sleep(AGAIN_SECONDS)
                await self._come()
        while self._client.get_trust_status()["unreceipted"]:
            await asyncio.sleep(LOOK_SECONDS)
        self._log.write(Event(Kind.SETTLED))

    async def _notify(self) -> None:
        self._begin("notification", self._send(self._other(), self._word(MOODS)))

    async def _murder(self) -> None:
        self._begin("notification", self._send(self._other(), self._word({"deadly": 1})))

    async def _hurry(self) -> None:
        lifetime = {"lifetime": SHORT_LIFE_SECONDS}
        self._begin("notification", self._send(self._other(), self._word(), **lifetime))

    async def _burst(self) -> None:
        other = self._other()
        for _ in range(BURST):
            self._begin("notification", self._send(other, self._word()))

    async def _news(self) -> None:
        for _ in range(NEWS):
            await self._broadcast()

    async def _ask(self) -> None:
        self._begin("request", self._request(self._other(), self._word(REQUEST_MOODS)))

    async def _broadcast(self) -> None:
        self._begin("broadcast", self._client.broadcast(self._word(), self._options))

    async def _go_away(self) -> None:
        self._log.write(Event(Kind.AWAY))
        await self._client.disconnect(timeout_seconds=self._chance.choice((0, 2)))
        await asyncio.sleep(self._chance.uniform(*AWAY_SECONDS))

    def _begin(self, what: str, sending: Awaitable[object]) -> None:
        async def see_to_it() -> None:
            await self._try(what, sending)

        task = asyncio.create_task(see_to_it())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _try(self, what: str, sending: Awaitable[object]) -> bool:
        """Log the result of a call; return whether it was the expected one."""
        try:
            await sending
            status = DONE
        except ATPError as problem:
            status = problem.code
        except WrongAnswer:
            status = WRONG
        self._log.write(Event(Kind.OUTCOME, type=what, status=status))
        return status == DONE

    async def _send(self, other: str, word: object, **options: Any) -> None:
        await self._client.send_notification(other, word, {**self._options, **options})

    async def _request(self, other: str, word: object) -> None:
        answer = await self._client.send_request(other, word, self._options)
        if answer.data != {"echo": word}:
            raise WrongAnswer

    async def _answer(self, envelope: ATPEnvelope) -> Any:
        await self._handle(envelope)
        return {"echo": envelope.data}

    async def _handle(self, envelope: ATPEnvelope) -> None:
        """Handle a message, with a line before and after it.

        The lines need no fsync: what a process has written outlives it.
        """
        attempt = envelope.delivery.attempt if envelope.delivery is not None else 1
        tried = Event(
            Kind.TRIED,
            message=envelope.message_id,
            peer=envelope.agent_identity.id,
            type=envelope.payload["messageType"],
            seq=attempt,
        )
        self._log.write(tried)
        status = FAILED
        try:
            await self._do(envelope.data.get("mood", ""), attempt)
            status = DONE
        except asyncio.CancelledError:
            status = CUT
            raise
        except Retry:
            status = AGAIN
            raise
        except Reject as refusal:
            status = refusal.code
            raise
        finally:
            self._log.write(replace(tried, kind=Kind.HANDLED, status=status))

    async def _do(self, mood: str, attempt: int) -> None:
        if mood == "deadly":
            os._exit(KILLED)
        if mood == "slow":
            await asyncio.sleep(self._chance.uniform(*SLOW_SECONDS))
        if mood == "unwanted":
            raise Reject(UNWANTED)
        if attempt <= FAILING_ATTEMPTS.get(mood, 0):
            raise Retry(after=RETRY_SECONDS) if mood == "later" else RuntimeError(mood)

    def _other(self) -> str:
        return self._chance.choice(self._others)

    def _word(self, moods: Mapping[str, int] | None = None) -> dict[str, Any]:
        word = {"n": self._chance.getrandbits(32), "text": "x" * self._chance.randrange(600)}
        if moods is None:
            return word
        return {**word, "mood": self._chance.choices(*zip(*moods.items(), strict=True))[0]}


async def run(path: Path) -> None:
    """Run all agents of the part."""
    part = Part(**json.loads(path.read_text(encoding="utf-8")))
    run_id = time.time_ns() // 1_000_000
    chance = random.Random(f"{part.seed} {run_id}")  # noqa: S311  # no secret is drawn from it
    agents: Sequence[Agent] = [
        Agent(part, identity, random.Random(chance.getrandbits(64)), run=run_id)  # noqa: S311
        for identity in part.identities
    ]
    living = asyncio.gather(*(agent.live() for agent in agents))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, living.cancel)
    try:
        await living
    except asyncio.CancelledError:
        await asyncio.gather(*(agent.leave() for agent in agents))


def _phase(part: Part) -> Phase:
    name, rate = Path(part.phase).read_text(encoding="utf-8").split()
    return Phase(name, float(rate))


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
