"""An agent process of the tests: it handles notifications, and logs when a handler begins and ends.

    python -m tests.sdk.agent_process <agent> <url> <hub id> <key file> <log> <seconds> <at once>

It is written as docs/sdk.md shows it: `async with`, `on_message`, `serve`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from atp import ATPClient, ATPEnvelope, IAgentIdentity, PrivateKey, WebSocketTransport


async def run(
    agent: str, url: str, hub_id: str, key: str, log: str, seconds: str, at_once: str
) -> None:
    with open(log, "a", encoding="utf-8") as file:

        def note(what: str, envelope: ATPEnvelope) -> None:
            file.write(f"{what} {envelope.data} {os.getpid()}\n")
            file.flush()

        async def handle(envelope: ATPEnvelope) -> None:
            note("begun", envelope)
            await asyncio.sleep(float(seconds))
            note("ended", envelope)

        async def answer(envelope: ATPEnvelope) -> object:
            note("asked", envelope)
            return envelope.data

        transport = WebSocketTransport(url, hub_id=hub_id)
        private = PrivateKey.from_pem(Path(key).read_bytes())
        client = ATPClient(
            IAgentIdentity(agent), None, private, transport=transport, max_handlers=int(at_once)
        )
        client.on_message("notification", handle)
        client.on_message("request", answer)
        async with client:
            await client.serve()
        print("served", flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(run(*sys.argv[1:]))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
