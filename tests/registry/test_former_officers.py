"""Who decided stays known: accounts are deactivated, never deleted, and names stay."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db.models import ProtectedError
from django.test import Client

from registry.agents.actions import issue_enrolment_token
from registry.officers.actions import issue_api_token
from registry.officers.actor import Actor
from registry.officers.groups import AUDITORS
from registry.policies.actions import save_policy
from registry.policies.models import Policy
from registry.scores.actions import annul_violation, close_violation
from registry.trail.models import Entry
from tests.registry.admin_cast import Browser, officer_client, text_of
from tests.registry.agent_cast import fresh, register
from tests.registry.score_cast import make_agent, violate
from tests.trail.readers import person

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def former(database: None) -> User:
    return get_user_model()._default_manager.create_user(fresh("olive"), is_staff=True)


def policy_by(user: User) -> Policy:
    document = {"name": fresh("policy"), "mode": "off", "rules": []}
    return save_policy(document, actor=Actor.of_user(user), reason="test")


def auditor() -> Client:
    user = person(AUDITORS)
    user.is_staff = True
    user.save()
    client = Browser(HTTP_HOST="localhost")
    client.force_login(user)
    return client


def leave(user: User) -> None:
    """An administrator deactivates the account and unticks "staff" on its page."""
    url = f"/admin/auth/user/{user.pk}/change/"
    values = {"username": user.username, "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    assert officer_client().post(url, values).status_code == 302
    user.refresh_from_db()
    assert (user.is_active, user.is_staff) == (False, False)


def test_nobody_deletes_an_account(former: User) -> None:
    boss = officer_client()
    url = f"/admin/auth/user/{former.pk}/delete/"
    assert boss.post(url, {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [former.pk], "post": "yes"}
    boss.post("/admin/auth/user/", chosen)
    assert "delete_selected" not in text_of(boss.get("/admin/auth/user/"))
    assert User.objects.filter(pk=former.pk).exists()


def _closes(user: User) -> Any:
    return close_violation(violate(make_agent(), "low").pk, actor=Actor.of_user(user), reason="x")


def _annuls(user: User) -> Any:
    return annul_violation(violate(make_agent(), "low").pk, actor=Actor.of_user(user), reason="x")


@pytest.mark.parametrize(
    "act",
    [
        policy_by,
        _closes,
        _annuls,
        lambda user: issue_enrolment_token(register().pk, actor=Actor.of_user(user)),
        lambda user: issue_api_token(user, "feed", days=1),
    ],
)
def test_the_database_keeps_an_account_that_rows_name(former: User, act: Any) -> None:
    act(former)
    with pytest.raises(ProtectedError):
        former.delete()


def test_a_former_officer_keeps_a_name(former: User) -> None:
    policy = policy_by(former)
    leave(former)
    entry = Entry.objects.get(kind="policy.created", subject=policy.name)
    reader = auditor()
    who = f"/admin/registry/entry/who/{Actor.of_user(former).name}/"
    for url in (
        who,  # entered; from then on, the name is shown for a while
        f"/admin/registry/policy/{policy.pk}/history/",
        f"/admin/registry/entry/{entry.index}/change/",
        f"/admin/registry/entry/?q={entry.index}",
    ):
        assert former.username in text_of(reader.get(url)), url


def test_a_deactivated_account_may_nothing(former: User) -> None:
    client = Client(HTTP_HOST="localhost")
    client.force_login(former)
    token = issue_api_token(former, "feed", days=1).text
    leave(former)
    assert client.get("/admin/").status_code == 302
    headers = {"Authorization": f"Token {token}"}
    assert client.get("/api/v1/agents/", headers=headers).status_code == 401
