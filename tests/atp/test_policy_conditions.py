"""Conditions: types are strict, values wrap and rank as they should, unknown is neither."""

from __future__ import annotations

import pytest

from atp.errors import MalformedDocument
from atp.judging.policy import compile_policies, explain_rules

SUNDAY_2330_UTC = 1_800_228_600  # 2027-01-17T23:30:00Z, in Berlin already Monday 00:30


def result(field, operator, value, *, context=None, payload=None):
    condition = {"field": field, "operator": operator, "value": value}
    rule = {"name": "r", "action": "allow", "conditions": [condition]}
    policy_set = compile_policies([{"name": "p", "rules": [rule]}])
    (verdict,) = explain_rules(policy_set, context or {}, payload)
    return verdict.conditions[0].result


@pytest.mark.parametrize(
    ("field", "operator", "value", "seen", "expected"),
    [
        ("sender.id", "equals", "alice", "alice", True),
        ("sender.id", "equals", "alice", "Alice", False),
        ("sender.id", "not_equals", "alice", "bob", True),
        ("sender.id", "in", ["alice", "bob"], "bob", True),
        ("sender.id", "not_in", ["alice", "bob"], "mallory", True),
        ("sender.id", "not_in", ["alice", "bob"], "bob", False),
        ("sender.id", "contains", "lic", "alice", True),
        ("sender.id", "starts_with", "al", "alice", True),
        ("sender.id", "starts_with", "li", "alice", False),
        ("sender.score", "less_than", 70, 69, True),
        ("sender.score", "less_than", 70, 70, False),
        ("sender.score", "at_most", 70, 70, True),
        ("sender.score", "at_least", 70, 70, True),
        ("sender.score", "greater_than", 70, 70, False),
        ("sender.score", "between", [60, 70], 70, True),
        ("sender.score", "between", [60, 70], 70.5, False),
        ("sender.score", "equals", 70, 70.0, True),
        ("sender.level", "at_least", "verified", "certified", True),
        ("sender.level", "less_than", "verified", "certified", False),
        ("sender.level", "between", ["unverified", "verified"], "sandboxed", False),
        ("data.sensitivity", "greater_than", "internal", "restricted", True),
        ("sender.tags", "contains", "host", ("host", "lab"), True),
        ("sender.tags", "contains", "ho", ("host", "lab"), False),
        ("sender.tags", "contains", "host", (), False),
        ("sender.tags", "contains_all", ["host", "lab"], ["lab", "host", "x"], True),
        ("sender.tags", "contains_all", ["host", "lab"], ["host"], False),
        ("sender.tags", "in", ["host", "lab"], ["lab"], True),
        ("sender.tags", "not_in", ["host", "lab"], ["lab"], False),
        ("sender.tags", "not_in", ["host", "lab"], (), True),
        ("message.lifespan_exceeded", "equals", True, True, True),
        ("message.lifespan_exceeded", "equals", True, False, False),
    ],
)
def test_it_compares(field, operator, value, seen, expected):
    assert result(field, operator, value, context={field: seen}) is expected


@pytest.mark.parametrize(
    ("field", "operator", "value", "seen"),
    [
        ("sender.score", "at_least", 1, True),
        ("sender.score", "at_least", 1, "90"),
        ("sender.score", "not_equals", 1, None),
        ("sender.score", "at_least", 1, float("nan")),
        ("sender.score", "at_most", 1, float("-inf")),
        ("message.lifespan_exceeded", "equals", True, 1),
        ("message.lifespan_exceeded", "not_equals", True, 0),
        ("sender.id", "not_equals", "alice", 7),
        ("sender.level", "not_equals", "certified", "superb"),
        ("sender.level", "less_than", "certified", 0),
        ("sender.tags", "contains", "host", "host"),
        ("sender.tags", "not_in", ["host"], ["lab", 1]),
        ("time.hour", "between", [18, 6], 24),
        ("sender.id", "matches", ".*", "\ud800"),
    ],
)
def test_it_cannot_tell_about_another_type_or_nothing(field, operator, value, seen):
    assert result(field, operator, value, context={field: seen}) is None


def test_it_remembers_true_and_one_as_different_values():
    condition = {"field": "payload:/x", "operator": "equals", "value": 1}
    rule = {"name": "r", "action": "log", "conditions": [condition]}
    policy_set = compile_policies([{"name": "p", "rules": [rule]}])
    matches = [policy_set.columns.match({}, {"x": x})[0] for x in (1, True, 1.0, "1", 2, True, 1)]
    assert matches == [1, 1, 1, 1, 0, 1, 1]  # unknown holds for log, so only 2 is a plain no
    strict = [{"name": "p", "rules": [{**rule, "action": "allow"}]}]
    columns = compile_policies(strict).columns
    assert [columns.match({}, {"x": x})[0] for x in (1, True, 1.0, "1", 2)] == [1, 0, 1, 0, 0]
    columns = compile_policies(strict).columns
    assert [columns.match({}, {"x": x})[0] for x in (True, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ([18, 6], [18, 23, 0, 5], [6, 17, 12]),
        ([9, 17], [9, 16], [8, 17, 0]),
        ([20, 24], [20, 23], [0, 19]),
        ([0, 1], [0], [1, 23]),
    ],
)
def test_it_takes_hours_half_open_and_over_midnight(window, inside, outside):
    for hour in inside:
        assert result("time.hour", "between", window, context={"time.hour": hour}) is True
    for hour in outside:
        assert result("time.hour", "between", window, context={"time.hour": hour}) is False


def test_it_derives_hour_and_weekday_in_the_named_zone():
    context = {"time.now": SUNDAY_2330_UTC + 0.25}
    assert result("time.hour", "equals", 23, context=context)
    assert result("time.weekday", "equals", "sunday", context=context)
    assert result("time.hour:Europe/Berlin", "equals", 0, context=context)
    assert result("time.weekday:Europe/Berlin", "equals", "monday", context=context)
    assert result("time.hour:Asia/Kolkata", "equals", 5, context=context)


@pytest.mark.parametrize("now", [None, True, "0", float("nan"), 1e300])
def test_it_cannot_tell_the_hour_without_a_time(now):
    assert result("time.hour", "at_least", 0, context={"time.now": now}) is None


def test_it_matches_the_whole_text():
    pattern = "ag.*-[0-9]+"
    assert result("sender.id", "matches", pattern, context={"sender.id": "agent-12"}) is True
    assert result("sender.id", "matches", pattern, context={"sender.id": "agent-12x"}) is False
    assert result("sender.id", "matches", "a|b", context={"sender.id": "ab"}) is False


def test_it_does_not_let_a_line_end_slip_past_a_pattern():
    payload = {"data": "secret\nplan"}
    assert result("payload:/data", "matches", "secret.*", payload=payload) is True


def test_it_matches_a_pathological_pattern_in_linear_time():
    # A backtracking engine needs longer than the universe has existed for this one.
    text = "a" * 20_000 + "!"
    assert result("payload:/data", "matches", "(a+)+(a+)+(a|aa)*b", payload={"data": text}) is False


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("/data/amount", 5),
        ("/data/list/1", 7),
        ("/data/list/01", None),
        ("/data/list/-", None),
        ("/data/list/2", None),
        ("/data/a~1b", 8),
        ("/data/m~0n", 9),
        ("/data/", 10),
        ("/data/null", None),
        ("/data/amount/x", None),
        ("/nowhere", None),
    ],
)
def test_it_follows_json_pointers(pointer, expected):
    data = {"amount": 5, "list": [6, 7], "a/b": 8, "m~n": 9, "": 10, "null": None}
    known = result(f"payload:{pointer}", "exists", True, payload={"data": data})
    assert known is (expected is not None)
    if expected is not None:
        assert result(f"payload:{pointer}", "equals", expected, payload={"data": data}) is True


@pytest.mark.parametrize("payload", [None, [], "text", 5, {"data": None}])
def test_it_finds_nothing_in_a_payload_of_another_shape(payload):
    assert result("payload:/data/amount", "equals", 5, payload=payload) is None


def test_it_compares_payload_values_with_their_own_type_only():
    payload = {"flag": True, "text": "5", "list": ["a", "b"], "mixed": ["a", 1]}
    assert result("payload:/flag", "equals", True, payload=payload) is True
    assert result("payload:/flag", "in", [0, 1], payload=payload) is None
    assert result("payload:/text", "at_least", 1, payload=payload) is None
    assert result("payload:/text", "not_equals", 5, payload=payload) is None
    assert result("payload:/list", "contains", "a", payload=payload) is True
    assert result("payload:/list", "contains_all", ["a", "c"], payload=payload) is False
    assert result("payload:/mixed", "contains", "a", payload=payload) is None


def test_it_knows_what_exists_and_is_never_unsure_of_it():
    assert result("sender.id", "exists", True, context={}) is False
    assert result("sender.id", "exists", False, context={}) is True
    assert result("sender.id", "exists", None, context={"sender.id": 5}) is True


@pytest.mark.parametrize(
    ("field", "operator", "value", "says"),
    [
        ("sender.shoe_size", "equals", 1, "there is no field"),
        (7, "equals", 1, "must be a text"),
        ("sender.id:x", "equals", "a", "nothing after a colon"),
        ("payload", "equals", 1, "JSON Pointer"),
        ("payload:", "equals", 1, "JSON Pointer"),
        ("payload:data", "equals", 1, "JSON Pointer"),
        ("payload:/a~2", "equals", 1, "JSON Pointer"),
        ("payload:" + "/a" * 33, "equals", 1, "JSON Pointer"),
        ("time.hour:Mars/Base", "equals", 1, "not a time zone"),
        ("time.hour:../../etc/passwd", "equals", 1, "not a time zone"),
        ("time.hour:", "equals", 1, "not a time zone"),
        ("sender.id", "is", "a", "is not an operator; use one of: equals"),
        ("sender.id", ["equals"], "a", "is not an operator"),
        ("sender.id", "less_than", "a", "does not apply"),
        ("sender.tags", "equals", "a", "does not apply"),
        ("sender.score", "at_least", True, "takes a number"),
        ("sender.score", "at_least", "70", "takes a number"),
        ("sender.score", "at_least", float("inf"), "takes a number"),
        ("sender.score", "between", [70, 60], "[lowest, highest]"),
        ("sender.score", "between", [70], "[lowest, highest]"),
        ("sender.score", "between", 70, "a list"),
        ("sender.level", "at_least", "superb", "use one of: sandboxed"),
        ("message.type", "equals", "letter", "use one of: request"),
        ("message.lifespan_exceeded", "equals", 1, "true or false"),
        ("sender.id", "in", [], "1 to 1000 values"),
        ("sender.id", "not_in", [], "1 to 1000 values"),
        ("sender.id", "in", ["a", 1], "takes a text"),
        ("sender.id", "in", "alice", "a list"),
        ("sender.id", "equals", None, "takes a text"),
        ("sender.id", "equals", "a" * 1_001, "at most 1000"),
        ("sender.id", "contains", "", "always holds"),
        ("sender.id", "matches", "(?=a)", "not an RE2 pattern"),
        ("sender.id", "matches", "(a){1,1000}{1,1000}", "not an RE2 pattern"),
        ("sender.id", "exists", "yes", "true or false"),
        ("payload:/a", "in", [1, "a"], "all of one type"),
        ("payload:/a", "equals", None, "can't be compared"),
        ("payload:/a", "equals", {"a": 1}, "can't be compared"),
        ("time.hour", "between", [6, 6], "two different hours"),
        ("time.hour", "between", [0, 24], "two different hours"),
        ("time.hour", "between", [25, 6], "two different hours"),
        ("time.hour", "equals", 24, "an hour from 0 to 23"),
    ],
)
def test_rejects_a_condition_that_makes_no_sense(field, operator, value, says):
    with pytest.raises(MalformedDocument) as caught:
        result(field, operator, value)
    assert says in caught.value.detail
    assert caught.value.detail.startswith("policy 'p', rule 'r', condition 1: ")
