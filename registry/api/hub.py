"""Public facts about this hub: its id, its WebSocket address, its public keys, its clock."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from atp.wire.timestamps import format_milliseconds
from registry.api.auth import PublicView
from registry.hub.actions import hub_id, session_jwks

SOCKET_PATH = "/ws/agents/"  # docs/protocol.md#connecting


class HubSerializer(serializers.Serializer[dict[str, object]]):
    """Public facts about the hub."""

    hub = serializers.CharField(help_text="The hub's id: the audience of proofs.")
    websocket = serializers.CharField(help_text="The address to which agents connect.")
    jwks = serializers.DictField(
        help_text="The keys with which the hub proves itself to agents: the current one first, "
        "then retired ones, which no longer sign."
    )
    time = serializers.CharField(
        help_text="The time on the hub's clock. Compare your own clock with it."
    )


class HubView(PublicView):
    """The hub: its id, WebSocket address, keys and clock."""

    @extend_schema(responses=HubSerializer, tags=["hub"])
    def get(self, request: Request) -> Response:
        return Response(
            {
                "hub": hub_id(),
                "websocket": websocket_url(request),
                "jwks": {"keys": session_jwks()},
                "time": format_milliseconds(datetime.now(UTC)),
            }
        )


def websocket_url(request: Request) -> str:
    """Return the WebSocket address on the host name that the caller has used.

    Django has checked that name against `ATP_ALLOWED_HOSTS`, but not the port after it: with a port
    on which the hub does not listen, the address is that of `ATP_PUBLIC_URL`.
    """
    public = urlsplit(settings.ATP_PUBLIC_URL)
    secure = request.is_secure() or public.scheme == "https"
    known_ports = {public.port, _own_port(request), None}
    used = urlsplit(f"//{request.get_host()}")
    host = used.netloc if used.port in known_ports else public.netloc
    return f"{'wss' if secure else 'ws'}://{host}{SOCKET_PATH}"


def _own_port(request: Request) -> int | None:
    """The port of the socket on which this node was asked; behind a proxy no caller knows it."""
    text = request.META.get("SERVER_PORT", "")
    return int(text) if text.isdecimal() else None
