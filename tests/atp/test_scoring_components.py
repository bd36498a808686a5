"""The score: what each component earns, what holds the total down, and the words for it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext

import pytest

from atp.judging.scoring import HALF_LIFE as TABLE
from atp.judging.scoring import ScoredViolation, ScoreInputs, explain, recompute, score

DAY = 86_400
NOW = 1_800_000_000
BEST = ScoreInputs(
    level="certified",
    issued_at=NOW - 10 * DAY,
    expires_at=NOW + 90 * DAY,
    declared_capabilities=("read", "write"),
    attested_capabilities=("read", "write", "sign"),
    key_algorithm="EdDSA",
    signatures_good=100,
    signatures_total=100,
    good_envelopes=100,
)


def total(**changes):
    return score(replace(BEST, **changes), NOW).total


def component(name, **changes):
    return score(replace(BEST, **changes), NOW).components[name]


def violation(severity, *, days=0, is_open=False, rule="some rule"):
    return ScoredViolation(severity, NOW - days * DAY, is_open, rule)


def test_it_gives_the_best_agent_a_hundred_and_nobody_nothing():
    assert score(BEST, NOW).total == 100
    assert score(ScoreInputs(), NOW).total == 0


@pytest.mark.parametrize(
    ("level", "points", "expected"),
    [
        ("certified", 40, 100),
        ("verified", 30, 84),
        ("unverified", 20, 69),
        ("sandboxed", 10, 39),
        (None, 0, 0),
        ("", 0, 0),
        ("superb", 0, 0),
    ],
)
def test_it_scores_and_caps_by_level(level, points, expected):
    assert component("identity", level=level) == points * 1_000
    assert total(level=level) == expected


@pytest.mark.parametrize(
    ("issued", "expires", "milli"),
    [
        (-10, 90, 20_000),
        (-75, 25, 20_000),
        (-80, 20, 16_000),
        (-99, 1, 800),
        (-3 * 365, 365 // 4 + 1, 20_000),  # counted as 365 days
        (-3 * 365, 36.5, 8_000),
        (-10, 0, 0),
        (-10, -1, 0),
        (1, 90, 0),
        (-10, None, 0),
        (None, 90, 0),
    ],
)
def test_it_lets_freshness_fall_in_the_last_quarter(issued, expires, milli):
    changes = {
        "issued_at": None if issued is None else NOW + issued * DAY,
        "expires_at": None if expires is None else NOW + expires * DAY,
    }
    assert component("freshness", **changes) == milli


@pytest.mark.parametrize(("issued", "expires"), [(1, 90), (-10, 0), (-10, -1)])
def test_it_gives_nothing_outside_the_attestation_s_time(issued, expires):
    assert total(issued_at=NOW + issued * DAY, expires_at=NOW + expires * DAY) == 0


@pytest.mark.parametrize(
    ("required", "declared", "attested", "milli"),
    [
        ((), (), ("read",), 0),
        ((), ("read",), (), 0),
        ((), ("read", "write"), ("read",), 7_500),
        ((), ("read", "read", "write"), ("write",), 7_500),
        (("sign",), ("read", "write"), ("sign",), 15_000),
        (("sign", "seal", "send"), ("read",), ("sign", "read"), 5_000),
    ],
)
def test_it_scores_what_the_attestation_covers(required, declared, attested, milli):
    changes = {"required_capabilities": required, "declared_capabilities": declared}
    assert component("capability", attested_capabilities=attested, **changes) == milli


@pytest.mark.parametrize(
    ("good", "milli"), [(0, 7_500), (50, 11_250), (100, 15_000), (1_000, 15_000), (-5, 7_500)]
)
def test_it_scores_good_envelopes_up_to_a_hundred(good, milli):
    assert component("compliance", good_envelopes=good) == milli


@pytest.mark.parametrize(
    ("violations", "milli"),
    [
        ([violation("low")], 14_250),
        ([violation("medium")], 12_750),
        ([violation("high")], 9_000),
        ([violation("critical")], 0),
        ([violation("high"), violation("high")], 3_000),
        ([violation("high")] * 3, 0),
        ([violation("high", days=7)], 12_000),
        ([violation("high", days=14)], 13_500),
        ([violation("high", days=-3)], 9_000),
        ([violation("unheard of")], 0),
    ],
)
def test_it_takes_violations_off_and_halves_them_every_week(violations, milli):
    assert component("compliance", violations=tuple(violations)) == milli


@pytest.mark.parametrize(
    ("algorithm", "good", "sent", "milli"),
    [
        ("EdDSA", 100, 100, 10_000),
        ("ES256", 100, 100, 10_000),
        ("RS256", 100, 100, 10_000),
        ("PS256", 99, 100, 9_900),
        ("demo", 100, 100, 5_000),
        (None, 100, 100, 0),
        ("HS256", 100, 100, 0),
        ("EdDSA", 0, 0, 10_000),
        ("EdDSA", 0, 1, 0),
        ("EdDSA", 5, 1, 10_000),
    ],
)
def test_it_scores_key_and_signatures(algorithm, good, sent, milli):
    changes = {"signatures_good": good, "signatures_total": sent}
    assert component("crypto", key_algorithm=algorithm, **changes) == milli


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"violations": (violation("critical", days=300, is_open=True),)}, 39),
        ({"violations": (violation("critical", days=6),)}, 69),
        ({"violations": (violation("high", days=6),)}, 69),
        ({"violations": (violation("high", days=6, is_open=True),)}, 69),
        ({"key_algorithm": "demo"}, 39),
        ({"parent_total": 55}, 55),
        ({"parent_total": 0}, 0),
        ({"status": "suspended"}, 0),
        ({"status": "revoked"}, 0),
        ({"status": "pending"}, 0),
        ({"status": ""}, 0),
    ],
)
def test_it_holds_the_total_under_its_ceilings(changes, most):
    assert total(**changes) == most


def test_it_lets_go_of_what_is_past_or_closed():
    assert total(violations=(violation("high", days=7),)) > 69
    assert total(violations=(violation("critical", days=300),)) > 69


def test_it_takes_violations_as_plain_tuples_too():
    plain = (("high", NOW - DAY, True, "rule"),)
    named = (ScoredViolation("high", NOW - DAY, True, "rule"),)
    assert score(replace(BEST, violations=plain), NOW) == score(
        replace(BEST, violations=named), NOW
    )


def test_it_has_the_half_life_table_that_its_comment_claims():
    with localcontext() as exact:
        exact.prec = 60
        steps = len(TABLE)
        wanted = [Decimal(10**6) * 2 ** (Decimal(-n) / steps) for n in range(steps)]
        assert list(TABLE) == [int(value.to_integral_value()) for value in wanted]


def test_it_says_what_earned_and_what_cost_points():
    rule = "no restricted data after hours"
    violations = (
        violation("high", rule=rule),
        violation("low", days=2, rule="x"),
        violation("low", days=2, rule="x"),
    )
    lines = [str(line) for line in explain(score(replace(BEST, violations=violations), NOW))]
    assert "+40.0 of 40: attested as certified" in lines
    assert "+20.0 of 20: attestation valid for 90 more days" in lines
    assert "+15.0 of 15: 2 of 2 declared capabilities attested" in lines
    assert "+10.0 of 10: EdDSA key, 100 of the last 100 signatures good" in lines
    assert f"-6.0: 1 high violation today, rule '{rule}'" in lines
    assert "-1.2: 2 low violations 2 days ago, rule 'x'" in lines
    assert lines[-1] == "at most 69 (not 92): high violation in the last 7 days"


def test_it_says_that_there_is_nothing():
    lines = [str(line) for line in explain(score(ScoreInputs(), NOW))]
    assert lines[0] == "+0.0 of 40: no valid attestation"
    assert lines[-1] == "at most 0 (not 7): no valid attestation"


def test_it_computes_an_old_row_again():
    made = score(replace(BEST, violations=(violation("high", days=3),)), NOW + 0.5)
    assert recompute(made.to_dict()) == made
