"""The news for one node, of one batch or of cancelled requests, packed as one layer message."""

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
    )  # agent, stream, first seq, last seq, frames; without frames the node reads the rows
    copies: list[tuple[str, int, int, list[int], str]] = field(
        default_factory=list
    )  # session that only sends, first and last seq of its answers, its own among them, frames
    cancels: list[tuple[str, str]] = field(default_factory=list)  # agent, frame
    close_agents: list[str] = field(default_factory=list)
    close_sessions: list[str] = field(default_factory=list)
    close_code: str = ""
    tally: dict[str, Any] = field(default_factory=dict)  # of that batch: `telemetry.tally`

    def pack(self) -> bytes:
        """Return the news as msgpack bytes.

        Drop the frames of all deliveries if they exceed `ATP_LUGGAGE_BYTES`. The node then reads
        the rows (docs/design/architecture.md#why-lanes).
        """
        frame_bytes = sum(len(frames) for *_, frames in (*self.deliveries, *self.copies))
        if frame_bytes > settings.ATP_LUGGAGE_BYTES:
            self.deliveries = [(a, s, first, last, "") for a, s, first, last, _ in self.deliveries]
            self.copies = [(s, first, last, own, "") for s, first, last, own, _ in self.copies]
        fields = {name: getattr(self, name) for name in self.__slots__}
        packed: bytes = msgpack.packb(fields)
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> News:
        """Return the news of a layer message; ignore unknown fields, use defaults for missing ones.

        While a hub is upgraded, workers and nodes can have different versions.
        """
        fields = msgpack.unpackb(packed)
        return cls(**{name: fields[name] for name in cls.__slots__ if name in fields})
