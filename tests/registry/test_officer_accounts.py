"""Who is given which rights is in the trail, by pseudonym, with what the account may afterwards."""

from __future__ import annotations

import json
import uuid

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client

from registry.officers.actor import pseudonym
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
    after = json.loads(bytes(altered.body.content))["after"]
    assert after["groups"] == ["Auditors"]
    assert after["staff"] is True
    for entry in (created, altered):
        assert name.encode() not in bytes(entry.leaf) + bytes(entry.body.content)
