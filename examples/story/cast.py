"""The agents of the story: each one is a process that gets orders from the narrator."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from atp.wire.canonical import parse
from examples.story.voice import StoryError

__all__ = ["Outcome", "Player", "Role"]

ANSWER_SECONDS: Final = 40.0
ENROL_SECONDS: Final = 60.0
END_SECONDS: Final = 10.0
LINE_MAX_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Role:
    """The role of an agent: its owner, and what the officer attests."""

    name: str
    character: str
    owner: str
    level: str
    capabilities: Sequence[str]
    organisation: str
    minimum_level: str = ""  # the lowest level of senders that it accepts


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an order: the agent's answer, and the receipts of its envelopes."""

    value: Mapping[str, Any]
    receipts: Sequence[Mapping[str, Any]]

    @property
    def error(self) -> str:
        """The code of the error that ended the order; "" if it succeeded."""
        return str(self.value.get("error", ""))

    @property
    def receipt(self) -> Mapping[str, Any]:
        """The receipt of the only envelope. Raises `StoryError` if there is not exactly one."""
        if len(self.receipts) != 1:
            raise StoryError(f"{len(self.receipts)} receipts came instead of one: {self.value}")
        return self.receipts[0]


@dataclass
class Player:
    """One agent, with its files, and its process while it runs."""

    role: Role
    agent: str
    folder: Path
    hub_url: str
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _orders: int = field(default=0, init=False)

    @property
    def identity(self) -> Path:
        """The path of the identity file."""
        return self.folder / self.agent / "identity.json"

    async def enrol(self, token: str) -> str:
        """Run `atp enroll`; return the fingerprint of the new key.

        Raises `StoryError` if the command fails or shows no fingerprint.
        """
        process = await _start("atp.cli", "enroll", "--hub", self.hub_url, "--agent", self.agent,
                               "--out", str(self.identity))  # fmt: skip
        async with asyncio.timeout(ENROL_SECONDS):
            output, problems = await process.communicate(f"{token}\n".encode())
        if process.returncode != 0:
            raise StoryError(f"atp enroll failed for {self.agent}: {problems.decode().strip()}")
        for line in output.decode().splitlines():
            label, _, value = line.partition(" ")
            if label == "fingerprint":
                return value.strip()
        raise StoryError(f"atp enroll showed no fingerprint for {self.agent}")

    async def start(self) -> Outcome:
        """Start the agent's process and let it connect."""
        self._process = await _start("examples.story.agent", str(self.identity))
        return await self.ask("connect")

    async def ask(self, deed: str, **arguments: Any) -> Outcome:
        """Send an order; return its result.

        Raises `StoryError` if the process ends or does not answer in `ANSWER_SECONDS`.
        """
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders += 1
        order = {"id": self._orders, "do": deed, **arguments}
        process.stdin.write(json.dumps(order).encode() + b"\n")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError:
            raise StoryError(f"{self.agent} did not finish: {deed}") from None
        if not line:
            raise StoryError(f"the process of {self.agent} ended: {await self._error_output()}")
        answer = parse(line)
        return Outcome(answer, answer.pop("receipts"))

    async def stop(self) -> None:
        """End the agent's process, if it runs."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise StoryError(f"the process of {self.agent} does not run")
        return self._process

    async def _error_output(self) -> str:
        process = self._running()
        assert process.stderr is not None
        return (await process.stderr.read()).decode(errors="replace").strip()[-1000:]


async def _start(module: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_MAX_BYTES,
        start_new_session=True,  # Ctrl-C reaches the narrator only, which then ends the agents
    )
