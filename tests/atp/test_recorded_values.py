"""A decision can be repeated without the payload: the record has each condition's result."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atp.judging.policy import RecordedPayload, RecordedValue, compile_policies, evaluate
from tests.atp.test_policy_properties import MESSAGES, PAYLOADS, numbered, rules

SALT = "s" * 22


def recorded(policy_set, payload):
    record = policy_set.columns.payload_record(payload)
    return RecordedPayload({f: RecordedValue.from_record(v) for f, v in record.items()})


@given(st.lists(rules(), max_size=6), MESSAGES, PAYLOADS)
def test_it_decides_the_same_without_the_payload(drawn, message, payload):
    policy_set = compile_policies([numbered(drawn)])
    known = recorded(policy_set, payload)
    decisions = [
        evaluate(policy_set, message, payload=one, throttled=lambda *_: False)
        for one in (payload, known)
    ]
    assert decisions[0].matched == decisions[1].matched
    assert recorded(policy_set, known) == known


def test_it_records_each_different_condition_once_in_the_order_of_the_rules():
    field = "payload:/x"
    conditions = [
        {"field": field, "operator": "equals", "value": 1},
        {"field": field, "operator": "exists", "value": True},
        {"field": field, "operator": "equals", "value": "a"},
        {"field": field, "operator": "equals", "value": 1},
    ]
    rows = [
        {"name": str(n), "action": "allow", "conditions": [condition]}
        for n, condition in enumerate(conditions)
    ]
    policy_set = compile_policies([{"name": "p", "rules": rows}])
    (record,) = policy_set.columns.payload_record({"salt": SALT, "x": 1}).values()
    assert record["holds"] == "11?"
    assert record["hash"]
    assert policy_set.columns.payload_record({"salt": SALT}) == {}


def test_it_puts_no_payload_value_on_record():
    conditions = [{"field": "payload:/iban", "operator": "equals", "value": "other"}]
    rule = {"name": "r", "action": "deny", "conditions": conditions}
    policy_set = compile_policies([{"name": "p", "rules": [rule]}])
    record = policy_set.columns.payload_record({"salt": SALT, "iban": "DE02120300000000202051"})
    assert "DE02" not in str(record)
