"""The agent processes of `test_lost_mail.py`, which kills them.

    python -m tests.crash.mail_agents handle <identity> <log> <seconds>
    python -m tests.crash.mail_agents store <identity> <outbox> <target> <count>
    python -m tests.crash.mail_agents flush <identity> <outbox>

`handle` is written as docs/sdk.md shows it, with the SDK's defaults, and has four handlers of each
type at once. It logs when a handler begins and ends. `store` sends notifications through an outbox
on disk and waits to be killed; `flush` only connects with the same outbox.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from atp import ATPClient, ATPEnvelope
from atp.errors import FlowTimeout

AT_ONCE = 4
TIMEOUT_MS = 50  # of a send while the hub is away
LONGEST_SECONDS = 60.0  # that a process waits to be killed


async def handle(identity: str, log: str, seconds: str) -> None:
    """Handle notifications and requests, each in `seconds`, until a signal."""
    with open(log, "a", encoding="utf-8") as file:

        async def work(envelope: ATPEnvelope) -> object:
            file.write(f"begun {envelope.data}\n")
            file.flush()
            await asyncio.sleep(float(seconds))
            file.write(f"ended {envelope.data}\n")
            file.flush()
            return envelope.data

        client = ATPClient.from_identity_file(identity)
        client.on_message("notification", work, max_running=AT_ONCE)
        client.on_message("request", work, max_running=AT_ONCE)
        async with client:
            print("ready", flush=True)
            await client.serve()


async def store(identity: str, outbox: str, target: str, count: str) -> None:
    """Send `count` notifications while the hub is away."""
    client = ATPClient.from_identity_file(identity, outbox=Path(outbox))
    for n in range(int(count)):
        try:
            await client.send_notification(target, n, {"timeout": TIMEOUT_MS})
        except FlowTimeout as problem:
            print(problem, flush=True)
    print("stored", flush=True)
    await asyncio.sleep(LONGEST_SECONDS)


async def flush(identity: str, outbox: str) -> None:
    """Send what an earlier process has stored."""
    async with ATPClient.from_identity_file(identity, outbox=Path(outbox)):
        print("ready", flush=True)
        await asyncio.sleep(LONGEST_SECONDS)


ROLES = {role.__name__: role for role in (handle, store, flush)}

if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](*sys.argv[2:]))
