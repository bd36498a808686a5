"""The scoring profile: weights, ceilings and half-life, versioned and editable by officers.

The defaults are those of docs/design/trust.md#the-score. A profile always keeps the order of levels
and severities: a lower level or a worse violation never gives a higher score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from atp.errors import MalformedDocument, excerpt
from atp.wire.json_values import is_whole
from atp.wire.words import LEVELS, SCORED_ALGORITHMS, SEVERITIES

__all__ = ["COMPONENTS", "DEFAULT_PROFILE", "Profile"]

COMPONENTS = ("identity", "freshness", "capability", "compliance", "crypto")
POINTS_MAX = 100


def _weights() -> dict[str, int]:
    return {"identity": 40, "freshness": 20, "capability": 15, "compliance": 15, "crypto": 10}


def _level_points() -> dict[str, int]:
    return {"sandboxed": 10, "unverified": 20, "verified": 30, "certified": 40}


def _level_ceilings() -> dict[str, int]:
    return {"sandboxed": 39, "unverified": 69, "verified": 84, "certified": 100}


def _violation_percent() -> dict[str, int]:
    return {"low": 5, "medium": 15, "high": 40, "critical": 100}


def _key_percent() -> dict[str, int]:
    return {"EdDSA": 100, "ES256": 100, "RS256": 100, "PS256": 100, "demo": 50}


@dataclass(frozen=True, slots=True)
class Profile:
    """The numbers by which a score is computed: points of 100, percent, days, and counts.

    Raises `MalformedDocument` if the numbers contradict each other.
    """

    version: int = 1
    weights: Mapping[str, int] = field(default_factory=_weights)
    level_points: Mapping[str, int] = field(default_factory=_level_points)
    level_ceilings: Mapping[str, int] = field(default_factory=_level_ceilings)
    violation_percent: Mapping[str, int] = field(default_factory=_violation_percent)
    key_percent: Mapping[str, int] = field(default_factory=_key_percent)
    critical_ceiling: int = 39
    high_ceiling: int = 69
    high_ceiling_days: int = 7
    demo_ceiling: int = 39
    half_life_days: int = 7
    validity_days: int = 365
    fresh_percent: int = 25
    good_envelopes: int = 100

    def __post_init__(self) -> None:
        _check_table("weights", self.weights, COMPONENTS, POINTS_MAX)
        _check_table("level_points", self.level_points, LEVELS, self.weights["identity"])
        _check_table("level_ceilings", self.level_ceilings, LEVELS, POINTS_MAX)
        _check_table("violation_percent", self.violation_percent, SEVERITIES, 100)
        _check_table("key_percent", self.key_percent, SCORED_ALGORITHMS, 100)
        for name in ("level_points", "level_ceilings"):
            _check_rising(name, [getattr(self, name)[level] for level in LEVELS])
        _check_rising("violation_percent", [self.violation_percent[s] for s in SEVERITIES])
        if sum(self.weights.values()) != POINTS_MAX:
            raise MalformedDocument(f"weights must add up to {POINTS_MAX}", field="weights")
        if self.critical_ceiling > self.high_ceiling:
            raise MalformedDocument(
                "critical_ceiling must not be above high_ceiling", field="critical_ceiling"
            )
        for name, (least, most) in _RANGES.items():
            _check_whole(name, getattr(self, name), least, most)

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as a JSON document."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {n: dict(v) if isinstance(v, Mapping) else v for n, v in values.items()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Profile:
        """Read the JSON document. Raises `MalformedDocument` if a member is missing or wrong."""
        _check_members("a scoring profile", document, [item.name for item in fields(cls)])
        values: dict[str, Any] = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in document.items()
        }
        return cls(**values)


_RANGES = {
    "version": (1, 2**31 - 1),
    "critical_ceiling": (0, POINTS_MAX),
    "high_ceiling": (0, POINTS_MAX),
    "high_ceiling_days": (1, 365),
    "demo_ceiling": (0, POINTS_MAX),
    "half_life_days": (1, 365),
    "validity_days": (1, 3_650),
    "fresh_percent": (1, 100),
    "good_envelopes": (1, 100_000),
}


def _check_members(what: str, document: object, names: list[str]) -> None:
    if not isinstance(document, Mapping):
        raise MalformedDocument(f"{what} must be an object, not {excerpt(document)}")
    missing = [name for name in names if name not in document]
    unknown = [name for name in document if name not in names]
    if missing or unknown:
        problem = f"{missing[0]} is missing" if missing else f"{excerpt(unknown[0])} is unknown"
        raise MalformedDocument(f"{what}: {problem}; the members are {', '.join(names)}")


def _check_table(name: str, table: object, keys: tuple[str, ...], most: int) -> None:
    _check_members(name, table, list(keys))
    assert isinstance(table, Mapping)
    for key, value in table.items():
        _check_whole(f"{name}.{key}", value, 0, most)


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    if not is_whole(value, least=least, most=most):
        raise MalformedDocument(
            f"{name} must be a whole number from {least} to {most}, not {excerpt(value)}",
            field=name,
        )


def _check_rising(name: str, values: list[int]) -> None:
    if values != sorted(values):
        raise MalformedDocument(
            f"{name} must not fall from one level or severity to the next higher one", field=name
        )


DEFAULT_PROFILE = Profile()
