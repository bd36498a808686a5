"""Transports: they carry an agent's frames to a hub. The in-memory one is in `atp.memory`."""

from atp.transports.base import Connection, Login, Transport
from atp.transports.websocket import WebSocketTransport

__all__ = ["Connection", "Login", "Transport", "WebSocketTransport"]
