"""Changes of rights are in the trail, by pseudonym, with the account's rights after them."""

from __future__ import annotations

import uuid

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.test import Client, RequestFactory

from registry.admin.pages import OfficerAdmin
from registry.officers.actions import issue_api_token
from registry.officers.actor import pseudonym
from registry.officers.models import ApiToken
from registry.trail.models import Entry


@pytest.fixture
def boss(database: None) -> Client:
    name = f"boss-{uuid.uuid4().hex[:8]}"
    user = get_user_model()._default_manager.create_superuser(name, password="long enough here")
    client = Client()
    client.force_login(user)
    return client


def test_it_enters_a_new_account_and_the_rights_it_is_given(boss: Client) -> None:
    name = f"audrey-{uuid.uuid4().hex[:8]}"
    password = "an auditor's long password"
    added = boss.post(
        "/admin/auth/user/add/",
        {"username": name, "password1": password, "password2": password, "usable_password": "true"},
    )
    assert added.status_code == 302, added.content.decode()
    user = get_user_model()._default_manager.get(username=name)
    group = Group.objects.get(name="Auditors")
    changed = boss.post(
        f"/admin/auth/user/{user.pk}/change/",
        {
            "username": name,
            "is_active": "on",
            "is_staff": "on",
            "groups": [group.pk],
            "date_joined_0": "2026-01-01",
            "date_joined_1": "00:00:00",
        },
    )
    assert changed.status_code == 302, changed.content.decode()
    created, altered = Entry.objects.filter(subject=pseudonym(user.pk)).select_related("body")
    assert (created.kind, altered.kind) == ("officer.created", "officer.changed")
    after = altered.body.read()["after"]
    assert after["groups"] == ["Auditors"]
    assert after["staff"] is True
    for entry in (created, altered):
        assert name.encode() not in bytes(entry.leaf) + entry.body.content()


def test_rejects_a_token_made_somebody_else_s(boss: Client) -> None:
    """Django's own form would save it, past the trail: the officer's token would be the boss's."""
    users = get_user_model()._default_manager
    officer = users.create_user(f"ann-{uuid.uuid4().hex[:8]}", is_staff=True)
    officer.groups.set([Group.objects.get(name="Compliance officers")])
    issue_api_token(officer, "the feed", days=1)
    token = ApiToken.objects.get(user=officer)
    client = Client()
    client.force_login(officer)
    page = f"/admin/registry/apitoken/{token.pk}/change/"
    values = {
        "user": users.filter(is_superuser=True)[0].pk, "name": "x", "token_hash": token.token_hash,
        "expires_at_0": "2099-01-01", "expires_at_1": "00:00:00",
    }  # fmt: skip
    assert client.get(page).status_code == 404
    assert client.post(page, values).status_code == 404
    unchanged = ApiToken.objects.get(pk=token.pk)
    assert (unchanged.user, unchanged.expires_at) == (officer, token.expires_at)


def test_no_page_of_the_registry_saves_by_django_s_own_form(boss: Client) -> None:
    """What changes a row is an action, which the trail hears of; the boss may everything else."""
    ours = [a for a in admin.site._registry.values() if isinstance(a, OfficerAdmin)]
    assert len(ours) > 10
    for one in ours:
        request = RequestFactory().post("/")
        request.user = get_user_model()._default_manager.filter(is_superuser=True)[0]
        with pytest.raises(PermissionDenied):
            one.changeform_view(request, None)
