"""The shipped baseline: who may reach which data, at which level and score."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from atp.judging.policy import BASELINE, compile_policies, evaluate, explain_rules

LEVELS = ("sandboxed", "unverified", "verified", "certified")
SENSITIVITIES = ("public", "internal", "confidential", "restricted")
ADDRESSED = ("request", "response", "notification")
POLICY_SET = compile_policies(BASELINE)


def context(level, sensitivity, **changes):
    made: dict[str, Any] = {
        "sender.id": "alice",
        "sender.level": level,
        "sender.score": 90,
        "recipient.id": "bob",
        "recipient.level": level,
        "recipient.tags": (),
        "message.type": "request",
        "data.sensitivity": sensitivity,
        "chain.lowest_level": level,
    }
    made.update({name.replace("__", "."): value for name, value in changes.items()})
    return {name: value for name, value in made.items() if value is not None}


def decide(level, sensitivity, **changes):
    made = context(level, sensitivity, **changes)
    return evaluate(POLICY_SET, made, throttled=lambda *_: False)


def allows(level, sensitivity, **changes):
    return decide(level, sensitivity, **changes).action == "allow"


def broadcast(level, sensitivity):
    nobody = {"recipient__id": None, "recipient__level": None, "recipient__tags": None}
    return allows(level, sensitivity, message__type="broadcast", **nobody)


# The lowest score that reaches the data, or none that does.
FLOORS: dict[str, dict[str, int | None]] = {
    "certified": {"public": 1, "internal": 0, "confidential": 70, "restricted": 85},
    "verified": {"public": 1, "internal": 0, "confidential": 70, "restricted": None},
    "unverified": {"public": 1, "internal": None, "confidential": None, "restricted": None},
    "sandboxed": {"public": 1, "internal": None, "confidential": None, "restricted": None},
}


@pytest.mark.parametrize("message_type", ADDRESSED)
@pytest.mark.parametrize(("level", "sensitivity"), list(itertools.product(LEVELS, SENSITIVITIES)))
def test_it_lets_each_level_reach_its_data_from_its_score_up(level, sensitivity, message_type):
    floor = FLOORS[level][sensitivity]
    reached = [
        score
        for score in range(101)
        if allows(level, sensitivity, sender__score=score, message__type=message_type)
    ]
    assert reached == ([] if floor is None else list(range(floor, 101)))


@pytest.mark.parametrize("lowest", [None, "sandboxed", "unverified", "verified"])
def test_rejects_restricted_data_through_a_weaker_agent(lowest):
    decision = decide("certified", "restricted", chain__lowest_level=lowest)
    assert decision.rule == "Restricted data needs a chain of certified agents"


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("certified", ["public", "internal"]),
        ("verified", ["public", "internal"]),
        ("unverified", ["public"]),
        ("sandboxed", []),
    ],
)
def test_it_lets_broadcasts_carry_what_all_may_see(level, expected):
    assert [s for s in SENSITIVITIES if broadcast(level, s)] == expected


@pytest.mark.parametrize("message_type", ADDRESSED)
@pytest.mark.parametrize(
    ("recipient_level", "tags", "expected"),
    [
        ("sandboxed", (), True),
        ("sandboxed", ("lab",), True),
        ("verified", ("sandbox-host",), True),
        ("certified", ("lab", "sandbox-host"), True),
        (None, ("sandbox-host",), True),
        ("unverified", (), False),
        ("certified", ("sandbox-hosting",), False),
        (None, (), False),
        ("certified", None, False),
    ],
)
def test_it_keeps_sandboxed_agents_among_themselves_and_their_hosts(
    recipient_level, tags, expected, message_type
):
    changes = {"recipient__level": recipient_level, "recipient__tags": tags}
    assert allows("sandboxed", "public", message__type=message_type, **changes) is expected


@pytest.mark.parametrize(("exceeded", "expected"), [(True, False), (False, True), (None, True)])
def test_it_refuses_an_envelope_that_has_outlived_itself(exceeded, expected):
    made = {"message__lifespan_exceeded": exceeded}
    assert allows("certified", "public", **made) is expected


@pytest.mark.parametrize("missing", ["sender.level", "data.sensitivity", "message.type"])
@pytest.mark.parametrize("level", LEVELS)
def test_rejects_what_it_cannot_tell(level, missing):
    made = context(level, "restricted")
    del made[missing]
    if (level, missing) == ("certified", "message.type"):
        made["data.sensitivity"] = "confidential"
    decision = evaluate(POLICY_SET, made, throttled=lambda *_: False)
    assert decision.action == "deny"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_it_does_not_punish_a_score_that_has_dipped(level, sensitivity):
    decision = decide(level, sensitivity, sender__score=0)
    if FLOORS[level][sensitivity]:
        assert (decision.code, decision.severity) == ("policy.none", "")


def test_it_watches_who_receives_without_deciding():
    decision = decide("certified", "restricted", recipient__level="unverified")
    assert decision.action == "allow"
    assert [match.rule for match in decision.monitored] == [
        "Restricted data goes to certified recipients"
    ]


def test_it_has_rules_that_people_can_read():
    names = [verdict.rule for verdict in explain_rules(POLICY_SET, {})]
    assert len(names) == len(set(names))
    assert all(" " in name and name[0].isupper() and len(name) <= 100 for name in names)
