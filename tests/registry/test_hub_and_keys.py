"""The hub makes itself once, and seals what keys it holds."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import Client

from atp.trust.keys import PublicKey
from registry.bootstrap import ensure_hub
from registry.hub import keyring
from registry.hub.actions import bump_epoch, hub_id, session_key
from registry.hub.keyring import SealBroken
from registry.hub.models import Hub, HubKey
from registry.issuers.models import Issuer
from registry.officers.actor import Actor, officer_names, pseudonym
from registry.officers.groups import AUDITORS, OFFICERS, ensure_groups
from registry.trail.models import Entry
from tests.registry.admin_cast import officer_client

pytestmark = pytest.mark.usefixtures("database")


def test_it_changes_nothing_a_second_time() -> None:
    def seen() -> tuple[object, ...]:
        keys = list(HubKey.objects.values_list("kid", flat=True))
        groups = list(
            Group.objects.values_list("name", "permissions").order_by("pk", "permissions")
        )
        return (
            Hub.objects.get().epoch,
            keys,
            groups,
            Issuer.objects.count(),
            Entry.objects.filter(actor__startswith="officer:").count(),
        )

    before = seen()
    assert ensure_hub().hub_id == hub_id()
    assert seen() == before


def test_it_begins_its_log_with_itself() -> None:
    first = Entry.objects.select_related("body").get(position=0)
    assert (first.kind, first.subject) == ("log.started", hub_id())
    assert session_key().kid in first.body.content().decode()


def test_it_tells_anybody_who_it_is() -> None:
    answer = Client(HTTP_HOST="localhost").get("/api/v1/hub").json()
    assert answer["hub"] == hub_id()
    (jwk,) = answer["jwks"]["keys"]
    assert PublicKey.from_jwk(jwk) == session_key().public
    assert "d" not in jwk


def test_rejects_a_bump_outside_a_transaction() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        bump_epoch()


def test_it_opens_only_what_it_sealed_for_the_same_owner() -> None:
    sealed = keyring.seal(b"secret", associated=b"owner")
    assert keyring.unseal(memoryview(sealed), associated=b"owner") == b"secret"
    assert b"secret" not in sealed
    assert keyring.seal(b"secret", associated=b"owner") != sealed
    with pytest.raises(SealBroken):
        keyring.unseal(sealed, associated=b"other")


@pytest.mark.parametrize("place", [0, 1, 12, 13, -1])
def test_rejects_a_seal_with_one_changed_byte(place: int) -> None:
    sealed = bytearray(keyring.seal(b"secret", associated=b"owner"))
    sealed[place] ^= 1
    with pytest.raises(SealBroken):
        keyring.unseal(bytes(sealed), associated=b"owner")


@pytest.mark.parametrize("stored", [b"", b"\x01", b"\x01" + b"a" * 12, b"\x02" + b"a" * 40])
def test_rejects_what_is_no_seal(stored: bytes) -> None:
    with pytest.raises(SealBroken):
        keyring.unseal(stored, associated=b"owner")


def test_rejects_another_key_encryption_key(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = keyring.seal(b"secret", associated=b"owner")
    monkeypatch.setattr(settings, "ATP_KEY_ENCRYPTION_KEY", b"k" * 32)
    with pytest.raises(SealBroken, match="ATP_KEY_ENCRYPTION_KEY"):
        keyring.unseal(sealed, associated=b"owner")


def test_it_names_people_by_pseudonym() -> None:
    client = officer_client()
    user_id = int(client.session["_auth_user_id"])
    name = pseudonym(user_id)
    assert name.startswith("officer:")
    assert len(name) == len("officer:") + 12
    assert pseudonym(user_id + 1) != name
    assert officer_names()[name].startswith("olive-")
    assert (Actor.hub().name, Actor.agent("alice").name) == ("hub", "agent:alice")


def test_it_gives_auditors_eyes_and_no_hands() -> None:
    ensure_groups()
    codenames = set(Group.objects.get(name=AUDITORS).permissions.values_list("codename", flat=True))
    assert {"view_agent", "view_entry", "view_envelope"} <= codenames
    own_tokens = {"add_apitoken", "change_apitoken"}  # each issues and revokes its own
    assert {name.partition("_")[0] for name in codenames - own_tokens} == {"view"}


def test_it_lets_nobody_delete() -> None:
    ensure_groups()
    officers = Group.objects.get(name=OFFICERS).permissions.values_list("codename", flat=True)
    assert {"add_agent", "change_agent", "change_agentkey"} <= set(officers)
    assert not [name for name in officers if name.startswith("delete_")]
