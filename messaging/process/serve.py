"""Serving the hub with uvicorn, and what is said on the way.

See docs/design/architecture.md#why-lanes.
"""

from __future__ import annotations

import gc
import ipaddress
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from django.conf import settings

from messaging.node.process_node import process_node
from messaging.process import boot, gc_settings
from messaging.wire.sockets import BoundedHttp, BoundedWebSocket
from registry.agents.models import Agent
from registry.officers.first_officer import FirstOfficer

PING_SECONDS = 20.0
GRACE_SECONDS = 5  # for requests to end by themselves when the hub stops
LOOPBACK_PROXY = "127.0.0.1"  # believed where no other proxy is named
KEEP_ALIVE_SECONDS = 30

FIRST_STEPS = """\
Next: sign in to the admin, register an agent, and hand its one-time token to
`.venv/bin/atp enroll` on its machine. README.md goes on from there. Ctrl-C stops the hub."""
STOP_HINT = "Ctrl-C stops the hub."


def server_config() -> uvicorn.Config:
    """How every node serves.

    This WebSocket implementation reads only as fast as the application takes, which is what
    bounds memory (`messaging.sockets` has the rest); compression would let a small frame become a
    large one.
    """
    module, _, name = settings.ASGI_APPLICATION.rpartition(".")
    return uvicorn.Config(
        f"{module}:{name}",
        http=BoundedHttp,
        ws=BoundedWebSocket,
        ws_max_size=settings.ATP_MAX_FRAME_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        lifespan="on",
        access_log=False,
        log_config=None,  # settings.LOGGING holds
        server_header=False,
        forwarded_allow_ips=settings.ATP_TRUSTED_PROXIES or LOOPBACK_PROXY,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def serve(*, host: str, port: int, say: Callable[[str], Any]) -> None:
    """Prepare and serve until SIGINT or SIGTERM; `say` prints a line for people.

    Raises `boot.StartRefused` where the hub can't start.
    """
    _take_all_descriptors()
    os.umask(0o077)  # the database holds what agents say to each other
    prepared = boot.prepare(host=host, port=port)
    if prepared.officer is not None:
        say(credentials(prepared.officer))
    greeting = _greeting(prepared, STOP_HINT if Agent.objects.exists() else FIRST_STEPS)
    server = _Server(server_config(), started=greeting, say=say)
    _end_quietly()
    try:
        server.run(sockets=[prepared.listener])
    except SystemExit as exc:  # uvicorn's way to say that the application refused
        raise boot.StartRefused("The hub did not start; the lines above say why.") from exc
    say("The hub has stopped.")
    gc.freeze()  # or Python looks through all that there is once more, for up to a second


class _Server(uvicorn.Server):
    """Says when it has `started`, with that text, and when it begins to stop."""

    def __init__(self, config: uvicorn.Config, *, started: str, say: Callable[[str], Any]) -> None:
        super().__init__(config)
        self._started, self._say = started, say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        gc_settings.settle()
        self._say(self._started)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """No new connections; what was taken gets its receipts; then the rest, as uvicorn does."""
        self._say("Stopping ...")
        for server in self.servers:
            server.close()
        await process_node.drain()
        await super().shutdown(sockets=sockets)


def _take_all_descriptors() -> None:
    """Sockets are descriptors: as many as the system allows, not the usual 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _end_quietly() -> None:
    """Make a stop that was asked for end with exit code 0.

    uvicorn catches these signals while it serves, puts back the handlers that it found and raises
    the signals again; the default handlers would end the process as if it had failed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def credentials(officer: FirstOfficer) -> str:
    """What is said of a first officer who was just made."""
    return (
        "The first compliance officer of this hub; the password is shown only now:\n"
        f"  user      {officer.name}\n"
        f"  password  {officer.password}\n"
    )


def _greeting(prepared: boot.Prepared, hint: str) -> str:
    host, port = prepared.listener.getsockname()[:2]
    loopback = ipaddress.ip_address(host).is_loopback
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}" if loopback else settings.ATP_PUBLIC_URL
    return "\n".join(
        (
            f"{prepared.hub_id} is serving{'' if loopback else f' on {host}, port {port}'}.",
            f"  admin     {address}/admin/",
            f"  API       {address}/api/docs/",
            f"  agents    ws{address.removeprefix('http')}/ws/agents/",
            f"  data      {settings.ATP_DATA_DIR}",
            hint,
        )
    )
