"""An agent process that answers requests and logs each one that reached its handler."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from atp import ATPClient


async def run(identity: str, log: str) -> None:
    with open(log, "a", encoding="utf-8") as file:

        async def handle(envelope: Any, respond: Any) -> None:
            file.write(f"{envelope.message_id}\n")
            file.flush()
            await respond({"echo": envelope.payload["data"]["n"]})

        client = ATPClient.from_identity_file(identity)
        client.on_message("request", handle)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        async with client:
            print("ready", flush=True)
            await ended.wait()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
