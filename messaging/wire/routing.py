"""The URL path of the agents' WebSocket."""

from __future__ import annotations

from django.urls import path

from messaging.wire.consumer import AgentConsumer

websocket_urlpatterns = [path("ws/agents/", AgentConsumer.as_asgi())]
