"""What carries an agent's frames: within the process, or to a hub."""

from atp.transports.base import Connection, Login, Transport
from atp.transports.memory import InMemoryTransport
from atp.transports.websocket import WebSocketTransport

__all__ = ["Connection", "InMemoryTransport", "Login", "Transport", "WebSocketTransport"]
