"""An agent process that sends requests and logs the result of each."""

from __future__ import annotations

import asyncio
import sys

from atp import ATPClient, ATPError

UNDER_WAY = 200
TIMEOUT_MS = 120_000  # longer than a restart of the hub


async def run(identity: str, target: str, count: str, log: str) -> None:
    room = asyncio.Semaphore(UNDER_WAY)
    with open(log, "a", encoding="utf-8") as file:
        async with ATPClient.from_identity_file(identity) as client:

            async def ask(n: int) -> None:
                async with room:
                    try:
                        answer = await client.send_request(
                            target, {"n": n}, {"timeout": TIMEOUT_MS}
                        )
                        outcome = "answered" if answer.data == {"echo": n} else "wrong"
                    except ATPError as problem:
                        outcome = problem.code
                file.write(f"{n} {outcome}\n")
                file.flush()

            await asyncio.gather(*(ask(n) for n in range(int(count))))


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
