"""Beyond this machine agents come by TLS or not at all, also where they know a node's own port."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator

NEIGHBOUR = ("203.0.113.7", 4711)
HERE = ("127.0.0.1", 4711)


async def first_answer(scheme: str, client: tuple[str, int]) -> str:
    """The reason why the application closes a socket that offers no subprotocol."""
    from atp_site.asgi import application

    scope: dict[str, Any] = {
        "type": "websocket",
        "path": "/ws/agents/",
        "scheme": scheme,
        "client": client,
        "headers": [(b"host", b"localhost")],
        "subprotocols": [],
    }
    agent = ApplicationCommunicator(application, scope)
    await agent.send_input({"type": "websocket.connect"})
    answer = await agent.receive_output(timeout=10)
    await agent.send_input({"type": "websocket.disconnect", "code": 1000})
    await agent.wait(timeout=10)
    return str(answer.get("reason", ""))


@pytest.mark.parametrize(
    ("public", "scheme", "client", "is_heard"),
    [
        ("https://hub.example.com", "ws", NEIGHBOUR, False),
        ("https://hub.example.com", "wss", NEIGHBOUR, True),
        ("https://hub.example.com", "ws", HERE, True),
        ("http://127.0.0.1:8000", "ws", HERE, True),
    ],
)
async def test_it_hears_agents_by_tls_or_from_this_machine(
    public: str, scheme: str, client: tuple[str, int], is_heard: bool, settings: Any
) -> None:
    """Who is heard is told what is wrong, who is not, nothing."""
    settings.ATP_PUBLIC_URL = public
    assert bool(await first_answer(scheme, client)) == is_heard
