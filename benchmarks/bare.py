"""A server that admits every client and does nothing: it shows the limit of a load generator.

    python -m benchmarks.bare PORT HUB_ID

It uses the WebSocket server of the hub and frames of the same size. It checks no key.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import uvicorn

from atp.wire.frames import SUBPROTOCOL
from benchmarks.lean import take_all_descriptors

NONCE = "x" * 43  # 32 bytes in base64url
WELCOME = {"type": "welcome", "session": "x" * 36, "agent": "bare", "proof": "x" * 400}


class Bare:
    """An ASGI application that sends a challenge and a welcome, and then nothing."""

    def __init__(self, hub: str) -> None:
        challenge = {
            "type": "challenge",
            "hub": hub,
            "nonce": NONCE,
            "time": "2026-01-01T00:00:00Z",
        }
        self._challenge = json.dumps(challenge)
        self._welcome = json.dumps(WELCOME)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        await send({"type": "websocket.send", "text": self._challenge})
        if (await receive())["type"] != "websocket.receive":
            return
        await send({"type": "websocket.send", "text": self._welcome})
        while (await receive())["type"] == "websocket.receive":
            pass


def main() -> None:
    """Serve until the process is ended."""
    take_all_descriptors()
    uvicorn.run(
        Bare(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="error",
    )


if __name__ == "__main__":
    main()
