"""The ASGI application: HTTP by Django, WebSockets by Channels, start and stop of the node."""

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

from atp_site import tracing  # noqa: E402  # models need django.setup() first
from atp_site.unreadable import Handler  # noqa: E402
from messaging.node.process_node import process_node  # noqa: E402
from messaging.wire.routing import websocket_urlpatterns  # noqa: E402

logger = logging.getLogger(__name__)


async def refuse_socket(scope: Any, receive: Any, send: Any) -> None:
    """Refuse a WebSocket with HTTP 403, for example one on an unknown path."""
    await receive()
    await send({"type": "websocket.close"})


async def over_tls(scope: Any, receive: Any, send: Any) -> None:
    """Route a WebSocket; refuse one with a wrong host, or without TLS from another machine.

    Django redirects pages to https. A socket can't be redirected. A login proof names the host, and
    the hub compares it with the Host header. So an attacker who relays a login must not choose it.
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
    """Return whether the Host header is one of this hub's names."""
    named = [value for name, value in scope["headers"] if name == b"host"]
    if len(named) != 1:
        return False
    domain, _ = split_domain_port(named[0].decode("latin-1"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def _is_local(client: Any) -> bool:
    """Return whether the peer is on this machine; a peer on a Unix socket has no address."""
    try:
        return not client or ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


async def run_lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Start the node before the first connection and stop it after the last one."""
    await receive()
    try:
        tracing.traces.begin()
        await process_node.start()
    except Exception as exc:  # uvicorn must learn that the start failed
        logger.exception("the node did not start")
        await send({"type": "lifespan.startup.failed", "message": type(exc).__name__})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    try:
        await process_node.stop()
    except Exception:  # the process ends either way
        logger.exception("the node did not stop cleanly")
    await asyncio.to_thread(tracing.traces.end)
    await send({"type": "lifespan.shutdown.complete"})


# Channels routes ASGI applications by Django's paths; their types allow views only, hence the cast.
anything_else = re_path(r"", cast(Any, refuse_socket))

sockets = URLRouter([*websocket_urlpatterns, anything_else])

application = ProtocolTypeRouter(
    {
        "http": Handler(),
        "websocket": over_tls,
        "lifespan": run_lifespan,
    }
)
