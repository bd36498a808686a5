"""The score, as docs/design/trust.md#the-score says it: whole milli-points, rounded down."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

Inputs = Mapping[str, Any]
Profile = Mapping[str, Any]

LEVELS = ("sandboxed", "unverified", "verified", "certified")
STEPS = 28  # of a half-life
DAY = 86_400
# What an input is if an entry does not say it.
DEFAULTS: Inputs = {
    "level": None, "issued_at": None, "expires_at": None, "required_capabilities": [],
    "declared_capabilities": [], "attested_capabilities": [], "key_algorithm": None,
    "signatures_good": 0, "signatures_total": 0, "good_envelopes": 0, "violations": [],
    "status": "active", "parent_total": None,
}  # fmt: skip


def score(inputs: Inputs, now: float, profile: Profile) -> int:
    """Return the score from 0 to 100."""
    moment = math.floor(now)
    level = _level(inputs, moment)
    earned = 1000 * profile["level_points"].get(level, 0)
    if level:
        earned += _freshness(inputs, moment, profile) + _capability(inputs, profile)
    earned += _compliance(inputs, moment, profile) + _crypto(inputs, profile)
    ceiling = min(_ceilings(inputs, level, moment, profile))
    return max(0, min(int(earned) // 1000, ceiling))


def _level(inputs: Inputs, moment: int) -> str:
    issued, expires = inputs["issued_at"], inputs["expires_at"]
    over = expires is not None and expires <= moment
    early = issued is not None and moment < issued
    return "" if over or early or inputs["level"] not in LEVELS else str(inputs["level"])


def _freshness(inputs: Inputs, moment: int, profile: Profile) -> int:
    issued, expires = inputs["issued_at"], inputs["expires_at"]
    if issued is None or expires is None or expires <= issued:
        return 0
    validity = min(expires - issued, profile["validity_days"] * DAY)
    full = 1000 * profile["weights"]["freshness"]
    left = full * (expires - moment) * 100 // (validity * profile["fresh_percent"])
    return int(min(full, left))


def _capability(inputs: Inputs, profile: Profile) -> int:
    needed = set(inputs["required_capabilities"] or inputs["declared_capabilities"])
    covered = len(needed & set(inputs["attested_capabilities"]))
    return 1000 * profile["weights"]["capability"] * covered // len(needed) if needed else 0


def _compliance(inputs: Inputs, moment: int, profile: Profile) -> int:
    most = profile["good_envelopes"]
    good = min(max(0, inputs["good_envelopes"]), most)
    earned = 1000 * profile["weights"]["compliance"] * (most + good) // (2 * most)
    penalty = sum(_weight(v, moment, profile) for v in inputs["violations"])
    return int(earned * max(0, 1_000_000 - penalty) // 1_000_000)


def _weight(violation: Any, moment: int, profile: Profile) -> int:
    severity, at, *_ = violation
    age = max(0, moment - at)
    halvings, rest = divmod(age * STEPS // (profile["half_life_days"] * DAY), STEPS)
    millionths = round(1_000_000 * 2 ** (-rest / STEPS))
    return int((millionths >> halvings) * profile["violation_percent"][severity] // 100)


def _crypto(inputs: Inputs, profile: Profile) -> int:
    strength = profile["key_percent"].get(inputs["key_algorithm"] or "", 0)
    total = inputs["signatures_total"]
    good, total = (min(inputs["signatures_good"], total), total) if total else (1, 1)
    return int(1000 * profile["weights"]["crypto"] * strength * good // (100 * total))


def _ceilings(inputs: Inputs, level: str, moment: int, profile: Profile) -> Iterator[int]:
    yield profile["level_ceilings"].get(level, 0)
    recent = profile["high_ceiling_days"] * DAY
    for severity, at, is_open, _ in inputs["violations"]:
        if severity == "critical" and is_open:
            yield profile["critical_ceiling"]
        if severity in ("high", "critical") and moment - at < recent:
            yield profile["high_ceiling"]
    if inputs["key_algorithm"] == "demo":
        yield profile["demo_ceiling"]
    if inputs["parent_total"] is not None:
        yield inputs["parent_total"]
    if inputs["status"] != "active":
        yield 0
