"""Enrolment over HTTP: a one-time token, a proof of possession, an officer who compares."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client

from atp.trust.keys import PrivateKey
from registry.agents.actions import (
    approve_key,
    issue_enrolment_token,
    revoke_agent,
)
from registry.agents.models import Agent, AgentKey, EnrolmentToken
from registry.hub.actions import hub_id
from registry.hub.models import Hub
from registry.trail.models import Entry
from tests.registry.agent_cast import OFFICER, enrol, fresh, kinds_about, proof_for, register

pytestmark = pytest.mark.usefixtures("database", "nobody_throttled")
ENROL = "/api/v1/enrol"


@pytest.fixture
def nobody_throttled() -> None:
    cache.clear()


@pytest.fixture
def agent(database: None) -> Agent:
    return register()


@pytest.fixture
def token(agent: Agent) -> str:
    return issue_enrolment_token(agent.id, actor=OFFICER).text


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey.generate()


def post(body: Any, **headers: Any) -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    client = Client(HTTP_HOST="localhost")
    return client.post(ENROL, text, content_type="application/json", **headers)


def enrolment(agent: Agent, token: str, key: PrivateKey, **other: Any) -> dict[str, Any]:
    proof = proof_for(agent.id, token, key, **other)
    return {"token": token, "jwk": key.public.jwk, "proof": proof}


def refused(response: Any, status: int, code: str) -> bool:
    problem = response.json()
    return (response.status_code, problem["code"], problem["status"]) == (status, code, status)


def test_it_registers_a_pending_key(agent: Agent, token: str, key: PrivateKey) -> None:
    response = post(enrolment(agent, token, key))
    answer = response.json()
    assert response.status_code == 202
    assert (answer["agent"], answer["kid"], answer["status"]) == (agent.id, key.kid, "pending")
    assert answer["hub"] == hub_id()
    assert answer["websocket"] == "ws://localhost/ws/agents/"
    row = AgentKey.objects.get(pk=key.kid)
    assert (row.agent_id, row.status, row.jwk) == (agent.id, "pending", key.public.jwk)
    assert kinds_about(agent.id)[-2:] == ["agent.invited", "agent.enrolled"]


def test_it_works_only_after_an_officer_approved(agent: Agent) -> None:
    enrolled = enrol(agent.id)
    agent.refresh_from_db()
    assert agent.status == "pending"
    row = approve_key(enrolled.row.kid, actor=OFFICER)
    agent.refresh_from_db()
    assert (agent.status, row.status) == ("active", "active")
    good_from = AgentKey.objects.get(pk=row.kid).good_from_entry
    assert good_from is not None
    approval = Entry.objects.get(position=good_from)
    assert (approval.kind, approval.subject, approval.actor) == (
        "key.approved", agent.id, OFFICER.name,
    )  # fmt: skip


def test_it_keeps_only_the_hash_of_a_token(agent: Agent, token: str) -> None:
    row = EnrolmentToken.objects.get(agent=agent)
    assert token not in json.dumps([row.token_hash, str(row), repr(row)])
    assert len(row.token_hash) == 43
    lived = row.expires_at - row.created_at
    assert 23.9 < lived.total_seconds() / 3600 <= 24


def test_it_answers_a_repeat_by_the_same_key(agent: Agent, token: str, key: PrivateKey) -> None:
    first, again = post(enrolment(agent, token, key)), post(enrolment(agent, token, key))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert EnrolmentToken.objects.get(agent=agent).misused_at is None
    epoch = Hub.objects.get().epoch
    assert post(enrolment(agent, token, key)).status_code == 202
    assert Hub.objects.get().epoch == epoch  # or anybody could have every batch judged again


def test_it_raises_an_alarm_at_a_second_use(
    agent: Agent, token: str, key: PrivateKey, caplog: pytest.LogCaptureFixture
) -> None:
    assert post(enrolment(agent, token, key)).status_code == 202
    mallory = PrivateKey.generate()
    for _ in range(2):
        assert refused(post(enrolment(agent, token, mallory)), 403, "identity.enrolment")
    assert EnrolmentToken.objects.get(agent=agent).misused_at is not None
    assert not AgentKey.objects.filter(pk=mallory.kid).exists()
    assert kinds_about(agent.id).count("key.refused") == 1
    alarms = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert alarms
    assert token not in caplog.text


def test_it_raises_an_alarm_even_where_the_second_proof_is_worthless(
    agent: Agent, token: str, key: PrivateKey
) -> None:
    post(enrolment(agent, token, key))
    body = enrolment(agent, token, PrivateKey.generate(), aud="hub-elsewhere")
    assert post(body).status_code == 403
    assert EnrolmentToken.objects.get(agent=agent).misused_at is not None


def test_it_replaces_an_open_token_by_a_newer_one(
    agent: Agent, token: str, key: PrivateKey
) -> None:
    newer = issue_enrolment_token(agent.id, actor=OFFICER).text
    assert refused(post(enrolment(agent, token, key)), 403, "identity.enrolment")
    assert post(enrolment(agent, newer, key)).status_code == 202


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"iss": "somebody-else"}, "identity.enrolment"),
        ({"aud": "hub-elsewhere"}, "signature.audience"),
        ({"tth": "A" * 43}, "signature.claims"),
        ({"jkt": "A" * 43}, "signature.claims"),
        ({"iat": int(time.time()) - 400}, "clock.expired"),
        ({"iat": int(time.time()) + 4000}, "clock.not_yet"),
    ],
)
def test_rejects_a_proof_of_something_else(
    agent: Agent, token: str, key: PrivateKey, other: dict[str, Any], code: str
) -> None:
    assert refused(post(enrolment(agent, token, key, **other)), 403, code)
    assert not AgentKey.objects.filter(pk=key.kid).exists()
    assert post(enrolment(agent, token, key)).status_code == 202


def test_rejects_a_key_that_the_sender_does_not_hold(
    agent: Agent, token: str, key: PrivateKey
) -> None:
    victim = PrivateKey.generate()
    proof = proof_for(agent.id, token, key, jkt=victim.kid)
    body = {"token": token, "jwk": victim.public.jwk, "proof": proof}
    response = post(body)
    assert response.status_code == 403
    assert response.json()["code"].startswith("signature.")
    assert not AgentKey.objects.filter(pk__in=[victim.kid, key.kid]).exists()


def test_rejects_an_expired_token(agent: Agent, token: str, key: PrivateKey) -> None:
    EnrolmentToken.objects.filter(agent=agent).update(expires_at=datetime.now(UTC))
    assert refused(post(enrolment(agent, token, key)), 403, "identity.enrolment")


def test_rejects_an_unknown_token(agent: Agent, key: PrivateKey) -> None:
    assert refused(post(enrolment(agent, fresh("guess"), key)), 403, "identity.enrolment")


def test_rejects_a_key_that_is_registered(agent: Agent, token: str) -> None:
    other = enrol(register("bob").id)
    body = enrolment(agent, token, other.key)
    assert refused(post(body), 409, "key.in_use")


def test_rejects_a_revoked_agent(agent: Agent, token: str, key: PrivateKey) -> None:
    revoke_agent(agent.id, actor=OFFICER, reason="gone")
    assert post(enrolment(agent, token, key)).status_code == 403
    assert not AgentKey.objects.filter(pk=key.kid).exists()


def test_rejects_a_private_key(agent: Agent, token: str, key: PrivateKey) -> None:
    body = enrolment(agent, token, key)
    body["jwk"] = {**body["jwk"], "d": "A" * 43}
    assert refused(post(body), 400, "key.unacceptable")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "malformed.document"),
        ("{", "malformed.json"),
        ("[]", "malformed.document"),
        ("{}", "malformed.document"),
        ('{"token": "a", "token": "b", "jwk": {}, "proof": "c"}', "malformed.duplicate_member"),
        ('{"token": 1, "jwk": {}, "proof": "c"}', "malformed.document"),
        ('{"token": "a", "jwk": [], "proof": "c"}', "malformed.document"),
        ('{"token": "a", "jwk": {}, "proof": "c", "more": 1}', "malformed.document"),
        ("[" * 100_000, "malformed.too_large"),
        ("[" * 1000, "malformed.too_deep"),
        ('{"token": "\\ud800", "jwk": {}, "proof": "c"}', "malformed.text"),
    ],
)
def test_rejects_a_body_that_is_no_enrolment(body: str, code: str) -> None:
    response = post(body)
    assert response.json()["code"] == code
    assert response.headers["Content-Type"] == "application/problem+json"


def test_rejects_more_refusals_than_anybody_needs(agent: Agent, key: PrivateKey) -> None:
    statuses = [post(enrolment(agent, fresh("guess"), key)).status_code for _ in range(31)]
    assert statuses[:30] == [403] * 30
    assert statuses[30] == 429


def test_rejects_them_whatever_address_the_caller_claims(agent: Agent, key: PrivateKey) -> None:
    body = enrolment(agent, fresh("guess"), key)
    statuses = [
        post(body, HTTP_X_FORWARDED_FOR=f"192.0.2.{n}", REMOTE_ADDR="198.51.100.7").status_code
        for n in range(31)
    ]
    assert statuses[-1] == 429


def test_it_does_not_count_enrolments_that_succeed(agent: Agent) -> None:
    for _ in range(35):
        text = issue_enrolment_token(agent.id, actor=OFFICER).text
        assert post(enrolment(agent, text, PrivateKey.generate())).status_code == 202


def test_it_lets_one_of_two_racing_keys_in(agent: Agent, token: str) -> None:
    bodies = [enrolment(agent, token, PrivateKey.generate()) for _ in range(4)]

    def send(body: dict[str, Any]) -> int:
        try:
            return int(post(body).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(send, bodies))
    assert statuses == [202, 403, 403, 403]
    assert AgentKey.objects.filter(agent=agent).count() == 1
    assert EnrolmentToken.objects.get(agent=agent).misused_at is not None
