"""Serve the hub with uvicorn, and print what its operator must know.

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

PING_SECONDS = 20.0  # between two pings, and until a missing pong ends the socket
GRACE_SECONDS = 5  # until requests that still run are cancelled, when the hub stops
LOOPBACK_PROXY = "127.0.0.1"  # trusted if ATP_TRUSTED_PROXIES is empty
KEEP_ALIVE_SECONDS = 30

FIRST_STEPS = """\
Next: sign in to the admin, register an agent, and hand its one-time token to
`.venv/bin/atp enroll` on its machine. README.md goes on from there. Ctrl-C stops the hub."""
STOP_HINT = "Ctrl-C stops the hub."


def server_config() -> uvicorn.Config:
    """Return uvicorn's configuration, the same for every node.

    This WebSocket implementation reads only as fast as the application takes messages, which limits
    memory (more in messaging/wire/sockets.py). Compression is off, because a small compressed
    frame can become a very large one.
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
    """Prepare and serve until SIGINT or SIGTERM; `say` prints a line for the operator.

    Raises `boot.StartRefused` if the hub can't start.
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
    except SystemExit as exc:  # uvicorn exits if the application does not start
        raise boot.StartRefused("The hub did not start; the lines above say why.") from exc
    say("The hub has stopped.")
    gc.freeze()  # skips the last collection of the interpreter, which takes up to a second


class _Server(uvicorn.Server):
    """A uvicorn server that prints the text `started` after its start, and a line when it stops."""

    def __init__(self, config: uvicorn.Config, *, started: str, say: Callable[[str], Any]) -> None:
        super().__init__(config)
        self._started, self._say = started, say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        gc_settings.settle()
        self._say(self._started)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, send the receipts still due, then stop as uvicorn does."""
        self._say("Stopping ...")
        for server in self.servers:
            server.close()
        await process_node.drain()
        await super().shutdown(sockets=sockets)


def _take_all_descriptors() -> None:
    """Raise the limit of file descriptors from the usual 1,024 to what the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _end_quietly() -> None:
    """Make a stop by SIGINT or SIGTERM end with exit code 0.

    uvicorn catches these signals while it serves. Then it restores the earlier handlers and raises
    the signals again. The default handlers would end the process with a failure.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def credentials(officer: FirstOfficer) -> str:
    """Return the lines that show a new first officer's name and password."""
    return (
        "The first compliance officer of this hub; the password is shown only now:\n"
        f"  user      {officer.name}\n"
        f"  password  {officer.password}\n"
    )


def _greeting(prepared: boot.Prepared, hint: str) -> str:
    host, port = prepared.listener.getsockname()[:2]
    loopback = ipaddress.ip_address(host).is_loopback
    shown = f"[{host}]" if ":" in host else host
    base_url = f"http://{shown}:{port}" if loopback else settings.ATP_PUBLIC_URL
    return "\n".join(
        (
            f"{prepared.hub_id} is serving{'' if loopback else f' on {host}, port {port}'}.",
            f"  admin     {base_url}/admin/",
            f"  API       {base_url}/api/docs/",
            f"  agents    ws{base_url.removeprefix('http')}/ws/agents/",
            f"  data      {settings.ATP_DATA_DIR}",
            hint,
        )
    )
