"""What goes wrong over HTTP is said as problem details, each code with its status."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client

from atp.errors import BY_CODE, FlowThrottled, from_code
from registry.api.errors import problem_of, status_of
from registry.officers.actions import issue_api_token, revoke_api_token
from registry.officers.actor import Actor
from registry.officers.groups import AUDITORS, ensure_groups
from registry.officers.models import ApiToken
from tests.registry.agent_cast import active, attest, fresh

pytestmark = pytest.mark.usefixtures("database")
AGENTS = "/api/v1/agents/"


def reader(*, group: str = AUDITORS) -> Any:
    ensure_groups()
    user = get_user_model()._default_manager.create_user(fresh("aude"))
    user.groups.set(Group.objects.filter(name=group))
    return user


def get(url: str, token: str | None = None, client: Client | None = None) -> Any:
    headers = {"Authorization": f"Token {token}"} if token else {}
    return (client or Client()).get(url, headers={"Host": "localhost", **headers})


def is_problem(response: Any, status: int, code: str) -> bool:
    body = response.json()
    return (
        response.headers["Content-Type"] == "application/problem+json"
        and (response.status_code, body["status"], body["code"]) == (status, status, code)
        and {"type", "title", "detail"} <= body.keys()
    )


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_it_has_a_status_for_each_code(code: str) -> None:
    status = status_of(code)
    assert 400 <= status < 600
    assert status != HTTPStatus.INTERNAL_SERVER_ERROR
    problem = problem_of(from_code(code, "because"))
    assert (problem["code"], problem["detail"], problem["status"]) == (code, "because", status)
    assert problem["title"]


def test_it_takes_an_unknown_code_for_its_own_fault() -> None:
    assert status_of("news.of_tomorrow") == HTTPStatus.INTERNAL_SERVER_ERROR


def test_it_says_when_to_try_again() -> None:
    assert problem_of(FlowThrottled("slow down", retry_after=7))["retryAfter"] == 7


def test_it_says_who_may_not() -> None:
    assert is_problem(get(AGENTS), 401, "http.not_authenticated")
    token = issue_api_token(reader(group="none"), "x", days=1).text
    assert is_problem(get(AGENTS, token), 403, "http.permission_denied")
    assert is_problem(get(AGENTS, "wrong"), 401, "http.authentication_failed")


def test_it_lets_readers_read_agents() -> None:
    agent = active("zz-reader").agent
    attest(agent, level="certified", capabilities=["a.b"])
    token = issue_api_token(reader(), "x", days=1).text
    listed = get(AGENTS, token).json()
    assert listed["results"] == sorted(listed["results"], key=lambda row: row["id"])
    row = get(f"{AGENTS}{agent}/", token).json()
    assert (row["id"], row["status"], row["owner"]) == (agent, "active", "Ann")
    assert row["score"] > 0
    assert [key["status"] for key in row["keys"]] == ["active"]
    assert [(a["level"], a["state"]) for a in row["attestations"]] == [("certified", "valid")]
    assert is_problem(get(f"{AGENTS}nobody-here/", token), 404, "http.not_found")


def test_it_lets_somebody_in_who_is_logged_in() -> None:
    client = Client()
    client.force_login(reader())
    assert get(AGENTS, client=client).status_code == 200


def test_rejects_other_methods() -> None:
    response = Client().delete(AGENTS, headers={"Host": "localhost"})
    assert response.status_code in (401, 405)
    response = Client().get("/api/v1/enrol", headers={"Host": "localhost"})
    assert is_problem(response, 405, "http.method_not_allowed")


def test_it_keeps_only_the_hash_of_an_api_token() -> None:
    issued = issue_api_token(reader(), "feed", days=1)
    assert issued.text not in repr(issued)
    assert issued.text not in str(ApiToken.objects.filter(pk=issued.row.pk).values())


@pytest.mark.parametrize("ended", ["revoked", "expired", "inactive"])
def test_rejects_a_token_that_has_ended(ended: str) -> None:
    issued = issue_api_token(reader(), "feed", days=1)
    assert get(AGENTS, issued.text).status_code == 200
    if ended == "revoked":
        revoke_api_token(issued.row.pk, actor=Actor.hub())
    elif ended == "expired":
        ApiToken.objects.filter(pk=issued.row.pk).update(expires_at=datetime.now(UTC))
    else:
        get_user_model()._default_manager.filter(pk=issued.row.user_id).update(is_active=False)
    assert get(AGENTS, issued.text).status_code == 401
