"""Values of a message that a record does not have: their hash, and the result of each condition.

A payload is no part of a record. A decision can be repeated all the same: the record says of each
condition on such a value whether it held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RecordedPayload", "RecordedValue"]

HOLDS = {True: "1", False: "0", None: "?"}
_RESULTS = {mark: result for result, mark in HOLDS.items()}


@dataclass(frozen=True, slots=True)
class RecordedValue:
    """A value that was there, known by its hash only.

    `holds` has a mark for each condition on the field, in the order of the rules, equal conditions
    once: `1` it held, `0` it did not, `?` it was unknown. `hash` is `None` if none was recorded.
    """

    hash: str | None
    holds: str

    @property
    def results(self) -> list[bool | None]:
        """The results of the conditions. Raises `KeyError` if `holds` has another mark."""
        return [_RESULTS[mark] for mark in self.holds]

    def to_record(self) -> dict[str, Any]:
        """Return the value as JSON, for `from_record`."""
        return {"hash": self.hash, "holds": self.holds}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RecordedValue:
        """Read what `to_record` wrote."""
        return cls(record["hash"], record["holds"])


@dataclass(frozen=True, slots=True)
class RecordedPayload:
    """A payload of which only the values are known that rules asked for, by their fields' names."""

    values: Mapping[str, RecordedValue]
