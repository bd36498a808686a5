"""Texts of the registry have one form and hide nothing; names that look alike are asked about."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from hypothesis import given
from hypothesis import strategies as st

from atp.errors import MalformedDocument
from registry.agents.actions import (
    approve_key,
    change_agent,
    change_organisation,
    create_organisation,
    suspend_agent,
)
from registry.agents.models import Organisation
from registry.attestations.actions import issue_attestation, renew_attestation
from registry.issuers.actions import Limits, create_issuer
from registry.issuers.models import Issuer
from registry.officers.actions import issue_api_token
from registry.plain_text import canonical, check_text, skeleton
from registry.policies.actions import save_policy
from tests.registry.admin_cast import form_of, officer_client, text_of
from tests.registry.agent_cast import OFFICER, active, attest, enrol, fresh, issuer, register

pytestmark = pytest.mark.usefixtures("database")


def _person() -> Any:
    return get_user_model()._default_manager.create_user(fresh("person"))


HIDDEN = {
    "right-to-left override": "\u202e",
    "zero width space": "\u200b",
    "zero width joiner": "\u200d",
    "isolate": "\u2066",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "control": "\x07",
    "escape": "\x1b",
    "delete": "\x7f",
    "line separator": "\u2028",
    "private use": "\ue000",
    "tag": "\U000e0041",
    "hangul filler": "\u3164",
    "variation selector": "\ufe0f",
    "grapheme joiner": "\u034f",
}


def _policy(**members: Any) -> None:
    document = {"name": fresh("policy"), "mode": "off", "rules": [], **members}
    save_policy(document, actor=OFFICER, reason="test")


def _rule(name: str = "rule", value: str = "x") -> dict[str, Any]:
    condition = {"field": "sender.organisation", "operator": "equals", "value": value}
    return {"name": name, "action": "deny", "conditions": [condition]}


def _organisation(**values: str) -> None:
    row = create_organisation(fresh("Org"), actor=OFFICER)
    kept = {"name": row.name, "contact": row.contact}
    change_organisation(row.pk, **{**kept, **values}, actor=OFFICER, reason="test")


# Where a person types text into the registry: the field that the refusal names, and the write.
PLACES: dict[str, tuple[str, Callable[[str], object]]] = {
    "organisation": ("name", lambda text: create_organisation(text, actor=OFFICER)),
    "contact": ("contact", lambda t: create_organisation(fresh("O"), contact=t, actor=OFFICER)),
    "changed name": ("name", lambda text: _organisation(name=text)),
    "changed contact": ("contact", lambda text: _organisation(contact=text)),
    "owner": ("owner_name", lambda text: register(owner_name=text)),
    "owner's contact": ("owner_contact", lambda text: register(owner_contact=text)),
    "description": ("description", lambda text: register(description=text)),
    "changed owner": (
        "owner_name",
        lambda t: change_agent(register().pk, {"owner_name": t}, actor=OFFICER, reason="test"),
    ),
    "issuer": (
        "name",
        lambda text: create_issuer(
            fresh("issuer"), Limits("verified"), name=text, actor=OFFICER
        ),
    ),
    "reason": ("reason", lambda t: suspend_agent(register().pk, actor=OFFICER, reason=t)),
    "reason of an approval": (
        "reason",
        lambda text: approve_key(enrol(register().pk).key.kid, actor=OFFICER, reason=text),
    ),
    "reason of an attestation": (
        "reason",
        lambda text: issue_attestation(
            active().agent, issuer=issuer(), level="verified", capabilities=(), days=1,
            actor=OFFICER, reason=text,
        ),
    ),
    "reason of a renewal": (
        "reason",
        lambda t: renew_attestation(attest(active().agent).pk, actor=OFFICER, reason=t),
    ),
    "token": ("name", lambda text: issue_api_token(_person(), text, days=1)),
    "policy": ("name", lambda text: _policy(name=text)),
    "description of a policy": ("description", lambda text: _policy(description=text)),
    "rule": ("rules.0.name", lambda text: _policy(rules=[_rule(name=text)])),
    "value of a condition": (
        "rules.0.conditions.0.value",
        lambda text: _policy(rules=[_rule(value=text)]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_rejects_what_can_not_be_seen(hidden: str) -> None:
    with pytest.raises(MalformedDocument, match=f"character 5 is U\\+{ord(hidden):04X}"):
        check_text(f"Bank{hidden} of Tests", "name")


@pytest.mark.parametrize("place", PLACES)
def test_every_text_of_the_registry_is_looked_at(place: str) -> None:
    field, write = PLACES[place]
    with pytest.raises(MalformedDocument, match=r"U\+200B \(zero width space\)") as refused:
        write(f"Bank\u200b of {fresh('Tests')}")
    assert refused.value.field == field


def test_a_form_says_so_at_the_field() -> None:
    url = "/admin/registry/organisation/add/"
    values = {"name": "Bank\u200b of Tests", "contact": ""}
    assert "character 5 is U+200B" in text_of(officer_client().post(url, values))


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("Cafe\u0301", "Café"),
        ("Bank\u00a0of\u3000Tests", "Bank of Tests"),
        ("  Bank   of Tests ", "Bank of Tests"),
        ("\u212bngstrom", "Ångstrom"),
    ],
)
def test_it_stores_one_form(typed: str, stored: str) -> None:
    mark = fresh("x")
    assert create_organisation(f"{typed} {mark}", actor=OFFICER).name == f"{stored} {mark}"
    with pytest.raises(MalformedDocument, match="already"):
        create_organisation(f"{stored} {mark}", actor=OFFICER)


def test_a_condition_compares_with_the_form_that_is_stored() -> None:
    document = {"name": fresh("policy"), "mode": "off", "rules": [_rule(value="Cafe\u0301")]}
    row = save_policy(document, actor=OFFICER, reason="test")
    stored = row.versions.get().document
    assert stored["rules"][0]["conditions"][0]["value"] == "Café"


def test_a_reason_may_have_lines_and_a_name_may_not() -> None:
    assert check_text("one\r\ntwo", "reason", lines=True) == "one\ntwo"
    with pytest.raises(MalformedDocument, match="control character"):
        check_text("one\ntwo", "name")


@given(st.text())
def test_the_canonical_form_is_stable(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once
    assert unicodedata.is_normalized("NFC", once)


@given(st.text())
def test_a_skeleton_is_stable(text: str) -> None:
    assert skeleton(text) == skeleton(canonical(text)) == skeleton(text)


@pytest.mark.parametrize(
    "name",
    [
        "B\u0430nk of Tests",  # a Cyrillic letter
        "BANK OF TESTS",
        "Bank-of-Tests",
        "B\u00e4nk of T\u00e9sts",
        "\uff22ank of Tests",  # full width
        "Bank 0f Te5ts",
    ],
)
def test_it_tells_what_looks_alike(name: str) -> None:
    assert skeleton(name) == skeleton("Bank of Tests")
    assert skeleton(name) != skeleton("Bank of Texts")


@pytest.mark.parametrize("kind", ["organisation", "issuer"])
def test_it_asks_about_a_name_that_looks_like_another_one(kind: str) -> None:
    mark = fresh("tests")
    create_organisation(f"Bank of {mark}", actor=OFFICER)
    url, officer = f"/admin/registry/{kind}/add/", officer_client()
    values = form_of(officer.get(url)) | {"name": f"B\u0430nk of {mark}", "slug": fresh("s")}
    asked = officer.post(url, values)
    assert f"This name looks like “Bank of {mark}”" in text_of(asked)
    model: Any = {"organisation": Organisation, "issuer": Issuer}[kind]
    assert not model.objects.filter(name=values["name"]).exists()
    answer = officer.post(url, form_of(asked) | {"different": "on"})
    assert answer.status_code == 302
    assert model.objects.filter(name=values["name"]).exists()


def test_it_does_not_ask_about_a_name_that_stays() -> None:
    mark = fresh("tests")
    create_organisation(f"Bank of {mark}", actor=OFFICER)
    row = create_organisation(f"B\u0430nk of {mark}", actor=OFFICER)
    values = {"name": row.name, "contact": "Ann", "reason": "test"}
    answer = officer_client().post(f"/admin/registry/organisation/{row.pk}/change/", values)
    assert answer.status_code == 302
