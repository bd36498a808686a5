"""The interface between a client and the transport of its frames.

A `Transport` knows the hub and how to reach it. Each `connect` returns a new `Connection` that has
logged in, so no state of a broken connection remains.
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
    """The agent that connects, and its key. A `key` of `None` signs nothing (in memory only).

    The in-memory transport believes `identity` and `trust_level`; a hub uses its registry instead.
    With `takeover` false, the login does not end a live session of the agent. `resumes` is the
    session that this client had before, or "". With `send_only`, a hub gives it a session that
    takes no mail, also if the agent has no other.
    """

    identity: IAgentIdentity
    trust_level: TrustLevel
    key: PrivateKey | None
    takeover: bool = True
    resumes: str = ""
    send_only: bool = False


class Connection(ABC):
    """One connection that has logged in. `welcome` is the hub's answer to the login."""

    welcome: Welcome

    @property
    def features(self) -> tuple[str, ...]:
        """The features of the protocol that both sides use on it (docs/protocol.md#features)."""
        return self.welcome.features

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Send one message (a frame or an array); raises a `SessionError` if it can't be sent."""

    @abstractmethod
    async def receive(self) -> bytes:
        """Return the next message, unparsed; raises a `SessionError` if the connection ended."""

    @abstractmethod
    async def close(self, *, comes_back: bool = False) -> None:
        """Close the connection; do nothing if it is closed.

        `comes_back` is whether the client connects again, so that the hub keeps its place.
        """


class Transport(ABC):
    """A way to a hub.

    `hub_id` is the hub's id, known before connecting and never taken from the connection; envelopes
    are addressed to it. `demo` allows string keys and unsigned messages; no network transport sets
    it. `clock` gives the time for everything over this transport, in seconds since 1970.
    """

    type: ClassVar[TransportType]
    demo: ClassVar[bool] = False
    hub_id: str
    clock: Clock = staticmethod(time.time)

    @abstractmethod
    async def connect(self, login: Login) -> Connection:
        """Connect and log in; raises a `SessionError`, or the error of the hub's refusal."""
