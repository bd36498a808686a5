"""Profiles and stored inputs are read strictly; what would make bad conduct pay is refused."""

from __future__ import annotations

import pytest

from atp.errors import MalformedDocument
from atp.judging.scoring import (
    DEFAULT_PROFILE,
    Profile,
    ScoredViolation,
    ScoreInputs,
    recompute,
    score,
)

NOW = 1_800_000_000
INPUTS = ScoreInputs(level="verified", violations=(ScoredViolation("low", NOW, True, "r"),))


def test_it_reads_back_what_it_writes():
    assert Profile.from_dict(DEFAULT_PROFILE.to_dict()) == DEFAULT_PROFILE
    assert ScoreInputs.from_dict(INPUTS.to_dict()) == INPUTS


def test_it_scores_by_the_profile_that_it_is_given():
    document = DEFAULT_PROFILE.to_dict()
    document["level_ceilings"] = {"sandboxed": 5, "unverified": 8, "verified": 10, "certified": 90}
    inputs = ScoreInputs(level="verified", key_algorithm="EdDSA")
    assert score(inputs, NOW).total == 47
    assert score(inputs, NOW, Profile.from_dict({**document, "version": 2})).total == 10


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 0}, "version must be"),
        ({"version": True}, "version must be"),
        ({"half_life_days": 0}, "half_life_days must be"),
        ({"fresh_percent": 101}, "fresh_percent must be"),
        ({"good_envelopes": 0}, "good_envelopes must be"),
        ({"validity_days": 1.5}, "validity_days must be"),
        ({"critical_ceiling": 80}, "must not be above high_ceiling"),
        ({"weights": {"identity": 100}}, "weights: freshness is missing"),
        ({"weights": 5}, "weights must be an object"),
        (
            {"weights": {**DEFAULT_PROFILE.weights, "crypto": 11}},
            "weights must add up to 100",
        ),
        (
            {"level_points": {**DEFAULT_PROFILE.level_points, "sandboxed": 35}},
            "level_points must not fall",
        ),
        (
            {"level_points": {**DEFAULT_PROFILE.level_points, "certified": 41}},
            "level_points.certified must be a whole number from 0 to 40",
        ),
        (
            {"level_ceilings": {**DEFAULT_PROFILE.level_ceilings, "certified": 50}},
            "level_ceilings must not fall",
        ),
        (
            {"violation_percent": {**DEFAULT_PROFILE.violation_percent, "critical": 30}},
            "violation_percent must not fall",
        ),
        ({"key_percent": {**DEFAULT_PROFILE.key_percent, "HS256": 100}}, "'HS256' is unknown"),
        ({"bonus": 5}, "'bonus' is unknown"),
    ],
)
def test_rejects_a_profile_that_contradicts_itself(changes, says):
    with pytest.raises(MalformedDocument) as caught:
        Profile.from_dict({**DEFAULT_PROFILE.to_dict(), **changes})
    assert says in caught.value.detail


@pytest.mark.parametrize(
    "changes",
    [
        {"level": 3},
        {"issued_at": "2025"},
        {"expires_at": True},
        {"expires_at": float("inf")},
        {"attested_capabilities": "read"},
        {"declared_capabilities": [1]},
        {"signatures_good": -1},
        {"good_envelopes": 1.5},
        {"violations": [["low", NOW, True]]},
        {"violations": [["low", "then", True, "r"]]},
        {"violations": [["low", NOW, 1, "r"]]},
        {"status": None},
        {"parent_total": "80"},
        {"extra": 1},
    ],
)
def test_rejects_stored_inputs_that_are_not_inputs(changes):
    with pytest.raises(MalformedDocument):
        ScoreInputs.from_dict({**INPUTS.to_dict(), **changes})


@pytest.mark.parametrize(
    "change", [{"algorithm": 2}, {"algorithm": None}, {"now": "today"}, {"inputs": None}]
)
def test_rejects_a_row_that_this_algorithm_did_not_make(change):
    with pytest.raises(MalformedDocument):
        recompute({**score(INPUTS, NOW).to_dict(), **change})
    with pytest.raises(MalformedDocument):
        recompute({"inputs": INPUTS.to_dict()})
