"""What one batch has to tell one node, packed as the single layer message for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack
from django.conf import settings


@dataclass(slots=True)
class News:
    """Receipts, deliveries and closings for the sockets of one node."""

    batch: str = ""
    status: str = ""  # of that batch: "done", "failed", "unavailable" or "begun"
    receipts: list[tuple[str, str]] = field(default_factory=list)  # session, frames
    deliveries: list[tuple[str, str, int, int, str]] = field(
        default_factory=list
    )  # agent, stream, first seq, last seq, frames; no frames: a doorbell
    close_agents: list[str] = field(default_factory=list)
    close_sessions: list[str] = field(default_factory=list)
    close_code: str = ""
    tally: dict[str, Any] = field(default_factory=dict)  # of that batch: `telemetry.tally`

    def pack(self) -> bytes:
        luggage = sum(len(frames) for *_, frames in self.deliveries)
        if luggage > settings.ATP_LUGGAGE_BYTES:  # a doorbell: the node reads the rows
            self.deliveries = [(a, s, first, last, "") for a, s, first, last, _ in self.deliveries]
        fields = {name: getattr(self, name) for name in self.__slots__}
        packed: bytes = msgpack.packb(fields)
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> News:
        """While a hub is upgraded, workers may say more, or less, than their node knows of."""
        fields = msgpack.unpackb(packed)
        return cls(**{name: fields[name] for name in cls.__slots__ if name in fields})
