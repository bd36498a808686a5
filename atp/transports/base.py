"""What a client needs of whatever carries its frames.

A `Transport` says where the hub is and how to get there; each `connect` gives a new `Connection`,
logged in, so that nothing of a broken one lives on in the next.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from atp.trust.keys import PrivateKey
from atp.types import IAgentIdentity, TransportType, TrustLevel
from atp.wire.frames import Welcome

__all__ = ["Clock", "Connection", "Login", "Transport"]

Clock = Callable[[], float]  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Login:
    """Who connects, and with which key; `None` signs nothing (in memory only).

    A transport within the process believes the rest of what is claimed; a hub has a registry.
    """

    identity: IAgentIdentity
    trust_level: TrustLevel
    key: PrivateKey | None


class Connection(ABC):
    """One logged-in connection. `welcome` is what the hub said to the login."""

    welcome: Welcome

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Hand over one message (a frame or an array); raises a `SessionError` when it broke."""

    @abstractmethod
    async def receive(self) -> bytes:
        """The next message, as it came; raises a `SessionError` once the connection has ended."""

    @abstractmethod
    async def close(self) -> None:
        """End it; more than once does no harm."""


class Transport(ABC):
    """A way to a hub.

    `hub_id` is the hub's id as learnt beforehand (never from the connection itself), and what
    envelopes are addressed to. `demo` allows the seed's string keys and unsigned messages, which
    no network does. `clock` is the time that everything over this transport goes by.
    """

    type: ClassVar[TransportType]
    demo: ClassVar[bool] = False
    hub_id: str
    clock: Clock = staticmethod(time.time)

    @abstractmethod
    async def connect(self, login: Login) -> Connection:
        """Connect and log in; raises a `SessionError` or what the hub refused the login with."""
