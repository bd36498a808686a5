"""The trust score, 0 to 100: a pure function of inputs, a time and a profile.

All arithmetic is in whole numbers (milli-points, seconds, millionths; half-lives from the table
below), so every machine gets the same score from the same row. A missing input earns no points.
See docs/design/trust.md#the-score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple

from atp.errors import MalformedDocument, excerpt
from atp.judging.profile import COMPONENTS, DEFAULT_PROFILE, Profile
from atp.wire.json_values import is_number, is_whole
from atp.wire.words import DEMO_SCORED_AS, LEVELS, SEVERITIES

__all__ = [
    "ALGORITHM_VERSION",
    "COMPONENTS",
    "DEFAULT_PROFILE",
    "LineKind",
    "Profile",
    "ScoreInputs",
    "ScoreLine",
    "ScoredViolation",
    "TrustScore",
    "explain",
    "recompute",
    "score",
]

ALGORITHM_VERSION = 1  # raise it when the same inputs and profile could give another total
MILLI = 1_000
MILLION = 1_000_000
DAY_SECONDS = 86_400
ACTIVE = "active"

# 2 ** -(step / 28) in millionths, rounded half to even: one half-life in 28 steps (of 6 hours each,
# when it is 7 days). Ages are rounded down to a step, so a violation never weighs too little.
HALF_LIFE = (
    1_000_000, 975_549, 951_695, 928_425, 905_724, 883_577, 861_973,
    840_896, 820_335, 800_277, 780_709, 761_620, 742_997, 724_830,
    707_107, 689_817, 672_950, 656_496, 640_443, 624_784, 609_507,
    594_604, 580_065, 565_881, 552_045, 538_547, 525_378, 512_532,
)  # fmt: skip


class ScoredViolation(NamedTuple):
    """A violation by an agent, or by one it answers for. `at` is in seconds since 1970.

    `open` is whether officers have not closed it yet.
    """

    severity: str
    at: float
    open: bool
    rule: str


@dataclass(frozen=True, slots=True)
class ScoreInputs:
    """Everything that a score depends on, except the time. Times are in seconds since 1970.

    `level`, `issued_at` and `expires_at` are those of the attestation that counts, or `None`
    without one. `required_capabilities` are those of a request; if there are none, the declared
    ones count. `signatures_good` and `signatures_total` cover the last 100 envelopes.
    `good_envelopes` is already capped by the caller. `parent_total` is the score of the agent that
    spawned this one.
    """

    level: str | None = None
    issued_at: float | None = None
    expires_at: float | None = None
    required_capabilities: tuple[str, ...] = ()
    declared_capabilities: tuple[str, ...] = ()
    attested_capabilities: tuple[str, ...] = ()
    key_algorithm: str | None = None
    signatures_good: int = 0
    signatures_total: int = 0
    good_envelopes: int = 0
    violations: tuple[ScoredViolation | tuple[str, float, bool, str], ...] = ()
    status: str = ACTIVE
    parent_total: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the inputs as JSON values, for `from_dict`."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["violations"] = [list(violation) for violation in self.violations]
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ScoreInputs:
        """Read what `to_dict` wrote; raises `MalformedDocument`."""
        if not isinstance(document, Mapping) or set(document) != set(_INPUTS):
            raise MalformedDocument(f"score inputs have exactly the members {', '.join(_INPUTS)}")
        for name, fits in _INPUTS.items():
            if not fits(document[name]):
                raise MalformedDocument(f"score inputs: {name} can't be {excerpt(document[name])}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in document.items()
        }
        values["violations"] = tuple(ScoredViolation(*item) for item in document["violations"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class TrustScore:
    """A score with its parts.

    `components` are in milli-points. `ceilings` are the limits that apply, as (reason, points); the
    lowest one decides.
    """

    total: int
    components: Mapping[str, int]
    ceilings: tuple[tuple[str, int], ...]
    inputs: ScoreInputs = field(repr=False)
    now: float = field(repr=False)
    profile: Profile = field(repr=False)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of `explain`, computed at each access."""
        return tuple(map(str, explain(self)))

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON values, with everything that `recompute` needs."""
        return {
            "total": self.total,
            "components": dict(self.components),
            "ceilings": [list(ceiling) for ceiling in self.ceilings],
            "reasons": list(self.reasons),
            "inputs": self.inputs.to_dict(),
            "now": self.now,
            "profile": self.profile.to_dict(),
            "algorithm": ALGORITHM_VERSION,
        }


class LineKind(StrEnum):
    """The kinds of lines of an explanation."""

    EARNED = "earned"  # points of a component
    COST = "cost"  # points of a component that violations took away
    CEILING = "ceiling"  # a limit below the sum of the components


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """One line of an explanation; `str()` gives it as a sentence.

    `component` is empty for a ceiling. `points` are in milli-points: points earned, points lost (as
    a positive number), or the limit. `label` is the same for people, `words` are the reason.
    """

    kind: LineKind
    component: str
    points: int
    label: str
    words: str

    def __str__(self) -> str:
        return f"{self.label}: {self.words}"

    @property
    def costs(self) -> bool:
        """Whether the line lowers the score."""
        return self.kind != LineKind.EARNED


def score(inputs: ScoreInputs, now: float, profile: Profile = DEFAULT_PROFILE) -> TrustScore:
    """Return the trust score at `now`, in seconds since 1970.

    It is the sum of the components, limited by the lowest ceiling.
    """
    moment = math.floor(now)
    level = _level_in_force(inputs, moment)
    components = {
        "identity": MILLI * profile.level_points.get(level, 0),
        "freshness": _freshness(inputs, moment, profile) if level else 0,
        "capability": _capability(inputs, profile) if level else 0,
        "compliance": _compliance(inputs, moment, profile),
        "crypto": _crypto(inputs, profile),
    }
    ceilings = tuple(_ceilings(inputs, level, moment, profile))
    lowest = min(limit for _, limit in ceilings)
    total = max(0, min(sum(components.values()) // MILLI, lowest))
    return TrustScore(total, components, ceilings, inputs, now, profile)


def recompute(document: Mapping[str, Any]) -> TrustScore:
    """Compute a score again from the result of `TrustScore.to_dict`.

    Raises `MalformedDocument` if the document does not fit, or is of another algorithm version.
    """
    names = ("inputs", "now", "profile", "algorithm")
    if not isinstance(document, Mapping) or any(name not in document for name in names):
        raise MalformedDocument(f"a stored score has the members {', '.join(names)}")
    if document["algorithm"] != ALGORITHM_VERSION:
        raise MalformedDocument(
            f"algorithm {excerpt(document['algorithm'])} is unknown; this version has"
            f" {ALGORITHM_VERSION}"
        )
    if not is_number(document["now"]):
        raise MalformedDocument(f"now can't be {excerpt(document['now'])}")
    inputs = ScoreInputs.from_dict(document["inputs"])
    return score(inputs, document["now"], Profile.from_dict(document["profile"]))


def explain(result: TrustScore) -> list[ScoreLine]:
    """Explain a score line by line: points earned, points lost, and the ceilings that limited it.

    There is one line of kind `EARNED` for each of `COMPONENTS`, in their order.
    """
    inputs, profile, moment = result.inputs, result.profile, math.floor(result.now)
    words = _words(inputs, moment)
    lines = []
    for name in COMPONENTS:
        earned = result.components[name]
        if name == "compliance":
            earned = _compliance_before_violations(inputs, profile)
        label = f"+{_points(earned)} of {profile.weights[name]}"
        lines.append(ScoreLine(LineKind.EARNED, name, earned, label, words[name]))
        if name == "compliance":
            lines += _violation_lines(inputs, moment, profile)
    return [*lines, *_ceiling_lines(result)]


def _words(inputs: ScoreInputs, moment: int) -> dict[str, str]:
    """Return the reason for the points of each component."""
    level = _level_in_force(inputs, moment)
    return {
        "identity": f"attested as {level}" if level else "no valid attestation",
        "freshness": _freshness_words(inputs, moment),
        "capability": _capability_words(inputs),
        "compliance": f"{inputs.good_envelopes} good envelopes in the last 90 days",
        "crypto": f"{inputs.key_algorithm or 'no'} key, {inputs.signatures_good} of the last"
        f" {inputs.signatures_total} signatures good",
    }


def _ceiling_lines(result: TrustScore) -> list[ScoreLine]:
    total = sum(result.components.values()) // MILLI
    return [
        ScoreLine(LineKind.CEILING, "", MILLI * limit, f"at most {limit} (not {total})", why)
        for why, limit in result.ceilings
        if limit < total
    ]


def _level_in_force(inputs: ScoreInputs, moment: int) -> str:
    """Return the attested level if the attestation is valid at `moment`, else ""."""
    issued, expires = _seconds(inputs.issued_at), _seconds(inputs.expires_at)
    if inputs.level not in LEVELS:
        return ""
    if (issued is not None and moment < issued) or (expires is not None and expires <= moment):
        return ""
    return inputs.level


def _freshness(inputs: ScoreInputs, moment: int, profile: Profile) -> int:
    issued, expires = _seconds(inputs.issued_at), _seconds(inputs.expires_at)
    if issued is None or expires is None or expires <= issued:
        return 0
    validity = min(expires - issued, profile.validity_days * DAY_SECONDS)
    full = MILLI * profile.weights["freshness"]
    return min(full, full * (expires - moment) * 100 // (validity * profile.fresh_percent))


def _capability(inputs: ScoreInputs, profile: Profile) -> int:
    needed = _needed(inputs)
    covered = len(needed.intersection(inputs.attested_capabilities))
    return MILLI * profile.weights["capability"] * covered // len(needed) if needed else 0


def _compliance(inputs: ScoreInputs, moment: int, profile: Profile) -> int:
    penalty = sum(
        _weight(severity, at, moment, profile) for severity, at, _, _ in inputs.violations
    )
    earned = _compliance_before_violations(inputs, profile)
    return earned * max(0, MILLION - penalty) // MILLION


def _compliance_before_violations(inputs: ScoreInputs, profile: Profile) -> int:
    good = min(max(0, inputs.good_envelopes), profile.good_envelopes)
    whole = MILLI * profile.weights["compliance"]
    return whole * (profile.good_envelopes + good) // (2 * profile.good_envelopes)


def _crypto(inputs: ScoreInputs, profile: Profile) -> int:
    strength = profile.key_percent.get(inputs.key_algorithm or "", 0)
    total = inputs.signatures_total
    # An agent that sent nothing yet gets full points: enrolment proved that it has the key.
    good, total = (min(max(0, inputs.signatures_good), total), total) if total > 0 else (1, 1)
    return MILLI * profile.weights["crypto"] * strength * good // (100 * total)


def _ceilings(
    inputs: ScoreInputs, level: str, moment: int, profile: Profile
) -> Iterator[tuple[str, int]]:
    yield (
        f"level {level}" if level else "no valid attestation",
        profile.level_ceilings.get(level, 0),
    )
    severities = [
        (_known(severity), moment - _floor(at), is_open)
        for severity, at, is_open, _ in inputs.violations
    ]
    if any(severity == "critical" and is_open for severity, _, is_open in severities):
        yield "open critical violation", profile.critical_ceiling
    recent = profile.high_ceiling_days * DAY_SECONDS
    # A critical violation counts as a high one too, whether it is open or closed.
    if any(s in ("high", "critical") and age < recent for s, age, _ in severities):
        days = profile.high_ceiling_days
        yield f"high violation in the last {days} days", profile.high_ceiling
    if inputs.key_algorithm == DEMO_SCORED_AS:
        yield "demo key", profile.demo_ceiling
    if inputs.parent_total is not None:
        yield "score of the parent", inputs.parent_total
    if inputs.status != ACTIVE:
        yield f"agent is {inputs.status}", 0


def _weight(severity: str, at: float, moment: int, profile: Profile) -> int:
    """Return the penalty that is left of a violation, in millionths."""
    age = max(0, moment - _floor(at))
    step = age * len(HALF_LIFE) // (profile.half_life_days * DAY_SECONDS)
    halvings, rest = divmod(step, len(HALF_LIFE))
    return (HALF_LIFE[rest] >> halvings) * profile.violation_percent[_known(severity)] // 100


def _known(severity: str) -> str:
    return severity if severity in SEVERITIES else "critical"


def _needed(inputs: ScoreInputs) -> frozenset[str]:
    return frozenset(inputs.required_capabilities or inputs.declared_capabilities)


def _seconds(at: float | None) -> int | None:
    return None if at is None else _floor(at)


def _floor(at: float) -> int:
    return math.floor(at)


def _points(milli: int) -> str:
    return f"{milli // MILLI}.{milli % MILLI // 100}"


def _freshness_words(inputs: ScoreInputs, moment: int) -> str:
    expires = _seconds(inputs.expires_at)
    if inputs.level not in LEVELS:
        return "no attestation"
    if expires is None:
        return "attestation without an end"
    if expires <= moment:
        return "attestation expired"
    days = math.ceil((expires - moment) / DAY_SECONDS)  # a day that has begun counts as a day
    return f"attestation valid for {days} more day{'s' * (days != 1)}"


def _capability_words(inputs: ScoreInputs) -> str:
    needed = _needed(inputs)
    covered = len(needed.intersection(inputs.attested_capabilities))
    kind = "required" if inputs.required_capabilities else "declared"
    return f"{covered} of {len(needed)} {kind} capabilities attested"


def _violation_lines(inputs: ScoreInputs, moment: int, profile: Profile) -> list[ScoreLine]:
    """Return one line for each group of equal violations, newest first.

    The costs together are at most the points that the component has.
    """
    left = _compliance_before_violations(inputs, profile)
    counts: dict[tuple[int, str, str], list[int]] = {}
    for severity, at, _, rule in inputs.violations:
        days = max(0, moment - _floor(at)) // DAY_SECONDS
        counted = counts.setdefault((days, _known(severity), rule), [0, 0])
        counted[0] += 1
        counted[1] += left * _weight(severity, at, moment, profile) // MILLION
    lines = []
    for (days, severity, rule), (count, cost) in sorted(counts.items()):
        cost = min(cost, left)
        left -= cost
        when = f"{days} day{'s' * (days != 1)} ago" if days else "today"
        noun = f"{count} {severity} violation{'s' * (count != 1)}"
        words = f"{noun} {when}, rule '{rule}'"
        lines.append(ScoreLine(LineKind.COST, "compliance", cost, f"-{_points(cost)}", words))
    return lines


def _is_count(value: object) -> bool:
    return is_whole(value, least=0)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_violations(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, list)
        and len(item) == 4
        and isinstance(item[0], str)
        and is_number(item[1])
        and isinstance(item[2], bool)
        and isinstance(item[3], str)
        for item in value
    )


_INPUTS: Mapping[str, Callable[[object], bool]] = {
    "level": lambda value: value is None or isinstance(value, str),
    "issued_at": lambda value: value is None or is_number(value),
    "expires_at": lambda value: value is None or is_number(value),
    "required_capabilities": _is_texts,
    "declared_capabilities": _is_texts,
    "attested_capabilities": _is_texts,
    "key_algorithm": lambda value: value is None or isinstance(value, str),
    "signatures_good": _is_count,
    "signatures_total": _is_count,
    "good_envelopes": _is_count,
    "violations": _is_violations,
    "status": lambda value: isinstance(value, str),
    "parent_total": lambda value: value is None or _is_count(value),
}
