"""The ASGI application: HTTP by Django, WebSockets by Channels, and the node's life around both."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from typing import Any, cast

import django
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.urls import re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
django.setup()

from atp_site import tracing  # noqa: E402  # models need the apps to be ready
from atp_site.unreadable import Handler  # noqa: E402
from messaging.node import node  # noqa: E402
from messaging.wire.routing import websocket_urlpatterns  # noqa: E402

logger = logging.getLogger(__name__)


async def refuse_socket(scope: Any, receive: Any, send: Any) -> None:
    """Answer a WebSocket on any other path with HTTP 403, instead of a traceback."""
    await receive()
    await send({"type": "websocket.close"})


async def over_tls(scope: Any, receive: Any, send: Any) -> None:
    """Route a WebSocket, unless it came from another machine in plain text past the proxy.

    Pages are led to https by Django; a socket can only be refused. So is one whose host is not this
    hub's: it is what a proof is held against, so a relay of a login must not choose it.
    """
    if not _is_known_host(scope):
        await refuse_socket(scope, receive, send)
        return
    wants_tls = settings.ATP_PUBLIC_URL.startswith("https://")
    if wants_tls and scope.get("scheme") != "wss" and not _is_local(scope.get("client")):
        await refuse_socket(scope, receive, send)
        return
    await sockets(scope, receive, send)


def _is_known_host(scope: Any) -> bool:
    """Whether the socket was asked for under one of this hub's names."""
    named = [value for name, value in scope["headers"] if name == b"host"]
    if len(named) != 1:
        return False
    domain, _ = split_domain_port(named[0].decode("latin-1"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def _is_local(client: Any) -> bool:
    """Whether the peer is this machine; a Unix socket has no peer."""
    try:
        return not client or ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


async def run_lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Start the node before the first connection and stop it after the last one."""
    await receive()
    try:
        tracing.begin()
        await node.start()
    except Exception as exc:  # whatever it is, the server must hear that nothing was started
        logger.exception("the node did not start")
        await send({"type": "lifespan.startup.failed", "message": type(exc).__name__})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    try:
        await node.stop()
    except Exception:  # the process ends either way
        logger.exception("the node did not stop cleanly")
    await asyncio.to_thread(tracing.end)
    await send({"type": "lifespan.shutdown.complete"})


# Channels routes ASGI applications with Django's paths, whose types know of views only.
anything_else = re_path(r"", cast(Any, refuse_socket))

sockets = URLRouter([*websocket_urlpatterns, anything_else])

application = ProtocolTypeRouter(
    {
        "http": Handler(),
        "websocket": over_tls,
        "lifespan": run_lifespan,
    }
)
