"""An agent's program in a process of its own: it asks another agent, connects once more, and ends.

Its arguments are one JSON text: the hub's `url` and `id`, and `agents`, a PEM by agent id; the
first agent asks, the second one answers.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from typing import Any

from atp import ATPClient, IAgentIdentity, PrivateKey, WebSocketTransport


async def main(told: dict[str, Any]) -> None:
    asker, answerer = (client(told, name) for name in told["agents"])
    async with asker, answerer:

        async def add(envelope: Any, respond: Any) -> None:
            await respond(sum(envelope.data))

        answerer.on_message("request", add)
        response = await asker.send_request(answerer.identity.id, [1, 2, 3])
        print(response.data)
    async with client(told, asker.identity.id):
        pass  # nothing is awaited between the login and the end


def client(told: dict[str, Any], name: str) -> ATPClient:
    transport = WebSocketTransport(told["url"], hub_id=told["id"])
    key = PrivateKey.from_pem(told["agents"][name])
    return ATPClient(IAgentIdentity(name), None, key, transport=transport)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
    gc.collect()
