"""What must hold of every score: nothing bad ever pays, and an old one can be computed again."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from atp.judging.scoring import (
    COMPONENTS,
    LineKind,
    Profile,
    ScoredViolation,
    ScoreInputs,
    explain,
    recompute,
    score,
)
from atp.wire import canonical

DAY = 86_400
NOW = 1_800_000_000
LEVELS = [None, "sandboxed", "unverified", "verified", "certified"]
SEVERITIES = ["low", "medium", "high", "critical"]
CAPABILITIES = st.lists(st.sampled_from(["read", "write", "sign"]), max_size=3).map(tuple)
TIMES = st.one_of(
    st.integers(NOW - 500 * DAY, NOW + 500 * DAY),
    st.floats(NOW - 20 * DAY, NOW + 20 * DAY, allow_nan=False),
)
VIOLATIONS = st.builds(
    ScoredViolation, st.sampled_from(SEVERITIES), TIMES, st.booleans(), st.sampled_from(["r", "s"])
)
INPUTS = st.builds(
    ScoreInputs,
    level=st.sampled_from(LEVELS),
    issued_at=st.one_of(st.none(), TIMES),
    expires_at=st.one_of(st.none(), TIMES),
    required_capabilities=CAPABILITIES,
    declared_capabilities=CAPABILITIES,
    attested_capabilities=CAPABILITIES,
    key_algorithm=st.sampled_from([None, "EdDSA", "ES256", "demo"]),
    signatures_good=st.integers(0, 100),
    signatures_total=st.integers(0, 100),
    good_envelopes=st.integers(0, 200),
    violations=st.lists(VIOLATIONS, max_size=4).map(tuple),
    status=st.sampled_from(["active", "active", "active", "suspended", "revoked"]),
    parent_total=st.one_of(st.none(), st.integers(0, 100)),
)


@st.composite
def profiles(draw):
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=4, max_size=4)))
    weights = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
    names = ["identity", "freshness", "capability", "compliance", "crypto"]
    rising = lambda most, n: st.lists(  # noqa: E731  # reads better beside its three uses
        st.integers(0, most), min_size=n, max_size=n
    ).map(sorted)
    high = draw(st.integers(0, 100))
    levels = [level for level in LEVELS if level]
    return replace(
        Profile(),
        version=draw(st.integers(1, 9)),
        weights=dict(zip(names, weights, strict=True)),
        level_points=dict(zip(levels, draw(rising(weights[0], 4)), strict=True)),
        level_ceilings=dict(zip(levels, draw(rising(100, 4)), strict=True)),
        violation_percent=dict(zip(SEVERITIES, draw(rising(100, 4)), strict=True)),
        high_ceiling=high,
        critical_ceiling=draw(st.integers(0, high)),
        half_life_days=draw(st.integers(1, 365)),
        validity_days=draw(st.integers(1, 3_650)),
        fresh_percent=draw(st.integers(1, 100)),
        good_envelopes=draw(st.integers(1, 500)),
    )


def total(inputs, profile, now=NOW):
    return score(inputs, now, profile).total


@given(INPUTS, TIMES, profiles())
def test_it_stays_between_nothing_and_a_hundred(inputs, now, profile):
    made = score(inputs, now, profile)
    assert 0 <= made.total <= 100
    assert type(made.total) is int
    assert all(type(milli) is int and milli >= 0 for milli in made.components.values())
    assert all(made.total <= limit for _, limit in made.ceilings)


@given(INPUTS, VIOLATIONS, profiles())
def test_it_never_rises_with_another_violation(inputs, violation, profile):
    more = replace(inputs, violations=(*inputs.violations, violation))
    assert total(more, profile) <= total(inputs, profile)


@given(INPUTS, VIOLATIONS, st.sampled_from(SEVERITIES), st.integers(0, 100 * DAY), profiles())
def test_it_never_rises_with_a_worse_or_later_violation(inputs, violation, other, later, profile):
    worse = max(violation.severity, other, key=SEVERITIES.index)
    graver = ScoredViolation(worse, violation.at + later, True, violation.rule)
    mild = replace(inputs, violations=(*inputs.violations, violation))
    grave = replace(inputs, violations=(*inputs.violations, graver))
    assert total(grave, profile) <= total(mild, profile)


@given(INPUTS, st.sampled_from(LEVELS), profiles())
def test_it_never_rises_with_a_lower_level(inputs, other, profile):
    lower = min(inputs.level, other, key=LEVELS.index)
    assert total(replace(inputs, level=lower), profile) <= total(inputs, profile)


@given(INPUTS, TIMES, profiles())
def test_it_never_rises_with_less_validity(inputs, expires, profile):
    assume(inputs.expires_at is not None)
    sooner = replace(inputs, expires_at=min(expires, inputs.expires_at))
    assert total(sooner, profile) <= total(inputs, profile)


@given(INPUTS, st.integers(0, 100 * DAY), profiles())
def test_it_never_rises_as_an_attestation_ages(inputs, later, profile):
    clean = replace(inputs, violations=())
    assume(clean.issued_at is None or clean.issued_at <= NOW)
    assert total(clean, profile, NOW + later) <= total(clean, profile)


@given(INPUTS, profiles())
def test_it_never_rises_by_losing_anything_else(inputs, profile):
    losses = [
        replace(inputs, attested_capabilities=inputs.attested_capabilities[1:]),
        replace(inputs, good_envelopes=inputs.good_envelopes // 2),
        replace(inputs, key_algorithm=None),
        replace(inputs, status="suspended"),
        replace(
            inputs,
            parent_total=30 if inputs.parent_total is None else min(30, inputs.parent_total),
        ),
    ]
    if inputs.signatures_total:
        losses.append(replace(inputs, signatures_good=inputs.signatures_good // 2))
    # Without a key there is no demo ceiling, but no points of the key either; compare like to like.
    if inputs.key_algorithm == "demo":
        del losses[2]
    assert all(total(loss, profile) <= total(inputs, profile) for loss in losses)


@given(INPUTS, TIMES, profiles())
def test_it_computes_the_same_from_what_was_stored(inputs, now, profile):
    made = score(inputs, now, profile)
    through_json = json.loads(json.dumps(made.to_dict()))
    assert recompute(through_json).total == made.total
    assert recompute(through_json).to_dict() == made.to_dict()
    through_trail = canonical.parse(canonical.serialize(made.to_dict()))
    assert recompute(through_trail).to_dict() == made.to_dict()


@given(INPUTS, TIMES, profiles())
def test_it_always_finds_words(inputs, now, profile):
    lines = explain(score(inputs, now, profile))
    assert len(lines) >= 5
    assert [line.component for line in lines if line.kind == LineKind.EARNED] == list(COMPONENTS)
    assert all(str(line).startswith(("+", "-", "at most ")) for line in lines)
