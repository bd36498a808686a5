"""What carries an agent's frames to a hub; within one process it is `atp.memory`."""

from atp.transports.base import Connection, Login, Transport
from atp.transports.websocket import WebSocketTransport

__all__ = ["Connection", "Login", "Transport", "WebSocketTransport"]
