"""The questions of docs/auditing.md: each is one call that finds all of it and nothing else."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from django.http import QueryDict

from registry.officers.actor import Actor
from registry.officers.scope import EVERYTHING
from registry.trail.kinds import Kind
from registry.trail.reading.filters import parse_query
from registry.trail.reading.search import find, span_of
from tests.trail.readers import add, fresh, listed, note, person


def indexes(rows: list[dict[str, Any]]) -> list[int]:
    return [row["index"] for row in rows]


def test_it_finds_what_an_officer_did(auditor: httpx.Client) -> None:
    officer, other = (Actor.of_user(person()).name for _ in range(2))
    first = add(
        note(kind=Kind.AGENT_REVOKED, actor=officer, subject="analyst-7"),
        note(kind=Kind.POLICY_CHANGED, actor=other, subject="Baseline"),
        note(kind=Kind.POLICY_CHANGED, actor=officer, subject="Baseline"),
    )
    assert indexes(listed(auditor, actor=officer, order="oldest")) == [first, first + 2]


def test_it_finds_what_rested_on_an_attestation(auditor: httpx.Client) -> None:
    jti = fresh("att")
    first = add(note(attestation=jti), note(attestation=fresh("att")), note(attestation=jti))
    assert indexes(listed(auditor, attestation=jti, order="oldest")) == [first, first + 2]


def test_it_finds_what_any_rule_of_a_policy_denied(auditor: httpx.Client) -> None:
    policy = fresh("policy")
    denied = {"kind": Kind.ENVELOPE_DENIED, "verdict": "denied"}
    first = add(
        note(policy=policy, rule="one", **denied),
        note(policy=policy, rule="one", verdict="accepted"),
        note(policy=fresh("policy"), rule="one", **denied),
        note(policy=policy, rule="two", **denied),
    )
    assert indexes(listed(auditor, policy=policy, verdict="denied")) == [first + 3, first]


def test_it_finds_what_belongs_to_a_request(auditor: httpx.Client) -> None:
    """The header has the request's id blinded; the caller names it as the agents did."""
    request = fresh("req")
    first = add(
        note(request_id=request, message_id=fresh("m")),
        note(request_id=fresh("req")),
        note(kind=Kind.ENVELOPE_EXPIRED, request_id=request, verdict="expired"),
    )
    rows = listed(auditor, requestId=request, order="oldest")
    assert indexes(rows) == [first, first + 2]
    assert request not in str(rows)


def test_it_finds_what_was_sent_to_an_agent(auditor: httpx.Client) -> None:
    agent = fresh("processor")
    first = add(
        note(recipient=agent, sender="a"),
        note(kind=Kind.ENVELOPE_DENIED, recipient=agent, sender="a"),
        note(recipient=agent, sender="b"),
    )
    asked = {"recipient": agent, "kind": "envelope.accepted", "order": "oldest"}
    assert indexes(listed(auditor, **asked)) == [first, first + 2]


@pytest.mark.parametrize(
    ("asked", "leading"),
    [
        ("policy=Baseline&verdict=denied", "verdict"),
        ("policy=Baseline&verdict=accepted", "policy"),
        ("kind=envelope.*&rule=r", "rule"),
        ("kind=key.revoked&rule=r", "kind"),
        ("verdict=denied&requestId=r", "requestId"),
        ("verdict=denied&attestation=a", "attestation"),
        ("score=1&sender=a".replace("score", "scoreFrom"), "sender"),
    ],
)
def test_it_reads_the_index_of_the_rarer_value(database: None, asked: str, leading: str) -> None:
    query = parse_query(QueryDict(asked), scope=EVERYTHING)
    assert query.leading is query.filters[leading]


def test_it_says_how_far_a_search_got_that_takes_too_long(database: None) -> None:
    """With no time at all it looks at one step of entries, and goes on behind them."""
    sender, policy = fresh("alice"), fresh("policy")
    first = add(*[note(sender=sender)] * 250)
    add(*[note(sender=sender, policy=policy)] * 2)
    asked = QueryDict(f"sender={sender}&scoreTo=50&order=oldest")
    query = parse_query(asked, scope=EVERYTHING)
    span = span_of(query.limits, log_size=first + 252)
    found = find(query, span, limit=99, seconds=0)
    assert (list(found.positions), found.reached) == ([], first + 99)
    steps = 1
    while found.reached is not None:
        span = span.behind(found.reached, query.order)
        found = find(query, span, limit=99, seconds=0)
        steps += 1
    assert steps == 3
    assert list(found.positions) == []
