"""A process that sends notifications through an outbox; a test kills it.

Arguments: the hub's address, id and the path of the agent's key; the path of the outbox; the
recipient; the first number and the last. It prints the number of each message whose call has
returned or timed out. At the end it waits to be killed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from atp import ATPClient, ATPError, IAgentIdentity, PrivateKey, WebSocketTransport

TIMEOUT_MS = 100
LIFETIME_SECONDS = 600
LONGEST_SECONDS = 60  # that it waits to be killed


async def main(url: str, hub: str, key: str, outbox: str, to: str, first: str, last: str) -> None:
    client = ATPClient(
        IAgentIdentity("alice"),
        None,
        PrivateKey.from_pem(Path(key).read_text(encoding="ascii")),
        transport=WebSocketTransport(url, hub_id=hub),
        outbox=outbox,
    )
    options = {"timeout": TIMEOUT_MS, "lifetime": LIFETIME_SECONDS}
    for number in range(int(first), int(last) + 1):
        try:
            await client.send_notification(to, number, options)
        except ATPError as problem:
            print(number, problem, flush=True)
        else:
            print(number, "accepted", flush=True)
    print("done", flush=True)
    await asyncio.sleep(LONGEST_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
