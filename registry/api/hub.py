"""What is public about this hub: its id, where agents dial, the key it proves itself by."""

from __future__ import annotations

from datetime import UTC, datetime

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
    hub = serializers.CharField(help_text="The id that proofs are addressed to.")
    websocket = serializers.CharField(help_text="Where agents dial.")
    jwks = serializers.DictField(
        help_text="The keys by which the hub proves itself to agents: the current one first, then "
        "those before it, which sign nothing more."
    )
    time = serializers.CharField(help_text="The hub's clock, to compare one's own with.")


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
    """Where the caller's agents dial: the host that it reached us by, which was checked."""
    secure = request.is_secure() or settings.ATP_PUBLIC_URL.startswith("https://")
    return f"{'wss' if secure else 'ws'}://{request.get_host()}{SOCKET_PATH}"
