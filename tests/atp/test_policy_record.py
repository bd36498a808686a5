"""The record of a decision has its inputs, so that it can be repeated, and no secrets."""

from __future__ import annotations

import json
from typing import Any

from atp.judging.policy import (
    EVALUATOR_VERSION,
    RE2_VERSION,
    TIME_ZONE_DATA_VERSION,
    compile_policies,
    evaluate,
    hash_payload_value,
)
from atp.types import MessageType
from atp.wire import canonical

SALT = "c2FsdHNhbHRzYWx0c2FsdA"
PAYLOAD: dict[str, Any] = {"salt": SALT, "data": {"iban": "DE02120300000000202051", "amount": 12.5}}
CONTEXT = {
    "sender.id": "alice",
    "sender.tags": ("b", "a"),
    "recipient.tags": frozenset({"y", "x"}),
    "message.type": MessageType.REQUEST,
    "time.now": 1_800_000_000.5,
}
USED = (
    "sender.id", "sender.tags", "recipient.tags", "message.type", "recipient.level",
    "time.hour:Europe/Berlin", "payload:/data/iban", "payload:/data/none",
)  # fmt: skip


def policy_set(*fields):
    rules = [
        {"name": f, "action": "log", "conditions": [{"field": f, "operator": "exists"}]}
        for f in fields
    ]
    return compile_policies([{"name": "p", "rules": [*rules, PASS]}])


PASS = {"name": "pass", "action": "allow", "always": True}


def decide(context=CONTEXT, payload=PAYLOAD, used=USED):
    return evaluate(policy_set(*used), context, payload=payload, throttled=lambda *_: False)


def test_it_records_the_fields_that_policies_use_and_no_others():
    consulted = decide().consulted
    assert set(consulted) == set(USED)
    assert consulted["sender.id"] == "alice"
    assert consulted["sender.tags"] == ["b", "a"]
    assert consulted["recipient.tags"] == ["x", "y"]
    assert consulted["message.type"] == "request"
    assert consulted["recipient.level"] is None
    assert consulted["time.hour:Europe/Berlin"] == 9


def test_it_records_payload_values_as_salted_hashes():
    consulted = decide().consulted
    value = PAYLOAD["data"]["iban"]
    expected = hash_payload_value(value, salt=SALT, pointer="/data/iban")
    assert consulted["payload:/data/iban"] == {"hash": expected}
    assert consulted["payload:/data/none"] is None
    assert value not in json.dumps(decide().to_record())
    assert value not in repr(decide())


def test_it_hashes_with_salt_and_place():
    hashes = {
        hash_payload_value("x", salt=SALT, pointer="/data/iban"),
        hash_payload_value("x", salt=SALT + "A", pointer="/data/iban"),
        hash_payload_value("x", salt=SALT, pointer="/data/other"),
        hash_payload_value("y", salt=SALT, pointer="/data/iban"),
    }
    assert len(hashes) == 4


def test_it_records_no_hash_that_could_be_guessed():
    for salt in ({}, {"salt": "short"}, {"salt": 5}):
        payload = {**salt, "data": {"iban": "x"}}
        assert decide(payload=payload).consulted["payload:/data/iban"] == {"hash": None}


def test_it_names_policies_and_versions():
    record = decide().to_record()
    assert record["policySet"] == policy_set(*USED).hash
    assert record["evaluator"] == EVALUATOR_VERSION
    assert record["re2"] == RE2_VERSION != "system"
    assert record["timeZoneData"] == TIME_ZONE_DATA_VERSION
    assert record["action"] == "allow"
    assert {match["rule"] for match in record["matched"]} >= {"pass", "sender.id"}


def test_it_can_be_written_down_whatever_it_was_given():
    context = {"sender.id": object(), "sender.tags": [1, "a"], "recipient.level": float("nan")}
    record = decide(context=context).to_record()
    assert record["consulted"]["sender.id"] == {"unusable": "object"}
    assert record["consulted"]["sender.tags"] == {"unusable": "list"}
    assert canonical.serialize(record)


def test_it_decides_the_same_from_its_own_record():
    first = decide()
    record = json.loads(json.dumps(first.to_record()))
    again = decide(context=record["consulted"])
    assert again.to_record() == record


def test_it_does_not_change_after_the_fact():
    context = dict(CONTEXT)
    decision = decide(context=context)
    context["sender.id"] = "mallory"
    assert decision.consulted["sender.id"] == "alice"
