"""The entry determines the facts: recorded and rebuilt, they lead to the same verdict."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atp.errors import MalformedDocument
from atp.judging.evidence import TrailEvidence
from atp.judging.facts import Facts
from atp.judging.judgement import Verdict, judge_message
from atp.judging.message import MessageFacts
from atp.judging.rebuilding import differences, rebuild, recompute
from atp.judging.recording import Recorder
from atp.judging.scoring import ScoreInputs
from atp.wire.canonical import serialize
from tests.atp import decision_facts

MOST_BYTES = 16_384
COMPARED = {field.name for field in fields(Verdict)} - {"decision", "decisions"}

Case = tuple[list[dict[str, Any]], MessageFacts, Facts, dict[str, ScoreInputs]]
SEEDS = st.integers(0, 2**32)


def case_of(seed: int) -> Case:
    """Return policies, a message, facts, and the score inputs that are in the log by agent."""
    dice = decision_facts.Dice(seed)
    documents = decision_facts.policies(dice)
    message = decision_facts.message(dice)
    facts = decision_facts.facts(dice, documents, message)
    bases = {name: decision_facts.inputs(dice) for name in dice.some(decision_facts.NAMES)}
    return documents, message, facts, bases


def entered(
    case: Case, *, most_bytes: int = MOST_BYTES
) -> tuple[dict[str, Any], TrailEvidence, Verdict]:
    """Judge, record, write as JSON and read back; return entry, evidence and verdict."""
    documents, message, facts, bases = case
    verdict = judge_message(message, facts)
    places = {name: decision_facts.base_index(place) for place, name in enumerate(bases)}
    recorder = Recorder(
        lambda agent: (places[agent], bases[agent]) if agent in bases else None,
        most_bytes=most_bytes,
    )
    record = recorder.record(message, facts, verdict)
    shared = {**record.shared, "jws": decision_facts.token_of(message)}
    if message.request_id is not None:
        shared["requestId"] = message.request_id
    sections = {"shared": shared, "sender": record.for_sender, "recipient": record.for_recipient}
    entry = {
        "index": 99,
        **decision_facts.header_of(facts, verdict),
        "body": {name: section for name, section in sections.items() if section},
    }
    evidence = TrailEvidence()
    for other in decision_facts.registry_entries(documents, facts, bases):
        evidence.read(json.loads(serialize(other)))
    return json.loads(serialize(entry)), evidence, verdict


def compared(verdict: Verdict) -> dict[str, Any]:
    values = {name: getattr(verdict, name) for name in COMPARED}
    return {**values, "matched": verdict.matched, "monitored": verdict.monitored}


@settings(max_examples=1_000)
@given(SEEDS)
def test_it_leads_to_the_same_verdict(seed: int) -> None:
    entry, evidence, verdict = entered(case_of(seed))
    again = recompute(entry, evidence)
    assert compared(again) == compared(verdict)
    assert differences(entry, again) == []


@settings(max_examples=400)
@given(SEEDS)
def test_it_needs_no_list_of_a_denied_envelope_that_was_too_long(seed: int) -> None:
    entry, evidence, verdict = entered(case_of(seed), most_bytes=1)
    assert compared(recompute(entry, evidence)) == compared(verdict)


@settings(max_examples=400)
@given(SEEDS)
def test_it_records_again_what_it_rebuilt(seed: int) -> None:
    """Nothing that the record needs is lost on the way."""
    entry, evidence, verdict = entered(case_of(seed))
    message, facts = rebuild(entry, evidence)
    recorder = Recorder(lambda agent: None, most_bytes=MOST_BYTES)
    record = recorder.record(message, facts, verdict)
    kept = {name: value for name, value in entry["body"]["shared"].items() if name in record.shared}
    assert json.loads(serialize(record.shared)) == kept


@pytest.mark.parametrize("section", ["shared", "sender"])
@settings(max_examples=20)
@given(seed=SEEDS)
def test_rejects_an_entry_whose_section_was_erased(seed: int, section: str) -> None:
    entry, evidence, _ = entered(case_of(seed))
    entry["body"][section] = None
    with pytest.raises(MalformedDocument):
        recompute(entry, evidence)


@settings(max_examples=50)
@given(SEEDS)
def test_it_finds_a_verdict_that_does_not_follow(seed: int) -> None:
    entry, evidence, verdict = entered(case_of(seed))
    wrong = "denied" if verdict.accepted else "accepted"
    changed = {**entry, "verdict": wrong, "score": (verdict.score + 1) % 101}
    assert differences(changed, recompute(changed, evidence)) == ["verdict", "score"]


def test_rejects_an_entry_that_refers_to_what_no_entry_said() -> None:
    evidence = TrailEvidence()
    with pytest.raises(MalformedDocument):
        evidence.policy_set("x")
    with pytest.raises(MalformedDocument):
        evidence.inputs(5)
