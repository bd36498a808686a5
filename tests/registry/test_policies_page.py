"""Officers write, change and turn off policies in the admin."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

import pytest
from django.test import Client

from atp.errors import MalformedDocument
from registry.admin.policies.page import PolicyPage
from registry.policies.models import Condition, Policy
from registry.trail.models import Entry
from tests.registry.admin_cast import form_of, officer_client, text_of

pytestmark = pytest.mark.usefixtures("database")
ADD = "/admin/registry/policy/add/"


def errors_of(response: Any) -> list[str]:
    return re.findall(r'<ul class="errorlist[^>]*><li>(.*?)</li>', text_of(response))


@pytest.fixture
def officer(database: None) -> Client:
    return officer_client()


@pytest.fixture
def name() -> str:
    return f"Policy {secrets.token_hex(6)}"


@pytest.fixture
def filled(officer: Client, name: str) -> dict[str, str]:
    """The blank page with one sound rule written into it."""
    values = form_of(officer.get(f"{ADD}?start=empty"))
    return values | {
        "name": name,
        "reason": "to be safe",
        "rules-0-name": "No night mail",
        "rules-0-conditions-0-field": "time.hour",
        "rules-0-conditions-0-argument": "Europe/Berlin",
        "rules-0-conditions-0-operator": "between",
        "rules-0-conditions-0-value": "18 to 6",
        "rules-0-conditions-1-field": "sender.level",
        "rules-0-conditions-1-operator": "in",
        "rules-0-conditions-1-value": "sandboxed, unverified",
    }


@pytest.fixture
def policy(officer: Client, filled: dict[str, str]) -> Policy:
    assert officer.post(ADD, filled).status_code == 302
    return Policy.objects.get(name=filled["name"])


def page_of(policy: Policy) -> str:
    return f"/admin/registry/policy/{policy.pk}/change/"


def test_it_saves_rows_as_a_first_version(policy: Policy) -> None:
    [version] = policy.versions.all()
    [rule] = version.document["rules"]
    assert (version.number, version.reason, policy.mode) == (1, "to be safe", "monitor")
    assert rule["action"] == "deny"
    assert rule["conditions"] == [
        {"field": "time.hour:Europe/Berlin", "operator": "between", "value": [18, 6]},
        {"field": "sender.level", "operator": "in", "value": ["sandboxed", "unverified"]},
    ]
    assert Condition.objects.filter(rule__policy=policy).count() == 2
    entry = Entry.objects.get(kind="policy.created", subject=policy.name)
    assert entry.actor.startswith("officer:")


def test_it_says_each_rule_in_words(officer: Client, policy: Policy) -> None:
    page = text_of(officer.get(page_of(policy)))
    said = "deny when time hour in Europe/Berlin is between 18 and 6 and sender level is one of"
    assert said in page


def test_it_saves_a_page_unchanged_as_the_same_document(officer: Client, policy: Policy) -> None:
    values = form_of(officer.get(page_of(policy))) | {"reason": "nothing"}
    assert officer.post(page_of(policy), values).status_code == 302
    second, first = policy.versions.all()
    assert (second.number, second.document) == (2, first.document)


def test_it_round_trips_the_baseline_through_the_form(officer: Client, name: str) -> None:
    baseline = Policy.objects.get(name="Baseline").versions.first()
    assert baseline is not None
    values = form_of(officer.get(f"{ADD}?start=baseline")) | {"name": name, "reason": "a copy"}
    assert officer.post(ADD, values).status_code == 302
    copy = Policy.objects.get(name=name).versions.get()
    assert copy.document["rules"] == baseline.document["rules"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"reason": ""}, "Say why"),
        ({"name": ""}, "This field is required."),
        ({"rules-0-name": ""}, "This field is required."),
        ({"rules-0-conditions-0-value": "later"}, "Write two values, such as 18 to 6."),
        ({"rules-0-conditions-0-value": "25 to 26"}, "hours from 0 to 23"),
        ({"rules-0-conditions-0-argument": "Atlantis"}, "is not a time zone"),
        ({"rules-0-conditions-1-operator": "matches"}, "Does not apply to Sender: level"),
        ({"rules-0-conditions-1-value": "godlike"}, "use one of: sandboxed"),
        ({"rules-0-conditions-1-field": ""}, "This field is required."),
        ({"rules-0-always": "on"}, "It has conditions"),
        ({"rules-0-throttle_limit": "5"}, "Only a rule that throttles has a limit"),
        ({"rules-0-action": "throttle"}, "needs a limit and a time"),
        ({"rules-0-action": "escalate"}, "Select a valid choice"),
        ({"mandatory": "on"}, "What is mandatory is enforced"),
    ],
)
def test_rejects_what_is_wrong_at_its_field(
    officer: Client, filled: dict[str, str], change: dict[str, str], problem: str
) -> None:
    response = officer.post(ADD, filled | change)
    assert any(problem in error for error in errors_of(response)), errors_of(response)
    assert not Policy.objects.filter(name=filled["name"]).exists()


def test_rejects_a_rule_without_conditions_that_does_not_say_always(
    officer: Client, filled: dict[str, str]
) -> None:
    blank = {
        f"rules-0-conditions-{row}-{part}": ""
        for row in (0, 1)
        for part in ("field", "argument", "operator", "value")
    }
    response = officer.post(ADD, filled | blank)
    assert any("tick this if it is meant for everything" in e for e in errors_of(response))
    assert officer.post(ADD, filled | blank | {"rules-0-always": "on"}).status_code == 302


def test_rejects_a_name_that_is_taken(
    officer: Client, policy: Policy, filled: dict[str, str]
) -> None:
    assert any("of this name" in error for error in errors_of(officer.post(ADD, filled)))


def test_rejects_at_its_rule_a_name_that_counters_would_confuse(
    officer: Client, filled: dict[str, str], name: str
) -> None:
    assert officer.post(ADD, filled | {"rules-0-name": "b/c"}).status_code == 302
    response = officer.post(ADD, filled | {"name": f"{name}/b", "rules-0-name": "c"})
    [rule] = response.context["page"].rules.forms
    assert "two rules are called" in rule.errors["name"][0]
    assert not response.context["page"].form.errors


def test_it_finds_the_field_of_each_member_of_a_document(
    officer: Client, filled: dict[str, str]
) -> None:
    """Members below a rule that was left blank, and a row that is to be removed, do not count."""
    removed = {"rules-0-conditions-0-DELETE": "on"}
    page = PolicyPage({}, data={**filled, **removed})
    assert page.is_valid(), page.form.errors
    page.add_problem(MalformedDocument("no level", field="rules.0.conditions.0.value"))
    page.add_problem(MalformedDocument("no limit", field="rules.0.throttle.limit"))
    page.add_problem(MalformedDocument("no mode", field="mode"))
    page.add_problem(MalformedDocument("too many rules"))
    [section] = page.sections()
    assert section.is_open
    assert section.conditions.forms[1].errors == {"value": ["no level"]}
    assert section.form.errors == {"throttle_limit": ["no limit"]}
    assert page.form.errors == {"mode": ["no mode"], "__all__": ["too many rules"]}


def test_rejects_a_change_of_what_somebody_else_changed_meanwhile(
    officer: Client, policy: Policy
) -> None:
    mine = form_of(officer.get(page_of(policy))) | {"reason": "mine", "priority": "7"}
    theirs = form_of(officer.get(page_of(policy))) | {"reason": "theirs"}
    assert officer_client().post(page_of(policy), theirs).status_code == 302
    assert "Another officer saved this policy" in text_of(officer.post(page_of(policy), mine))
    assert policy.versions.count() == 2


def test_it_adds_blank_rows_without_scripts(officer: Client, filled: dict[str, str]) -> None:
    grown = form_of(officer.post(ADD, filled | {"_add": "rules-0-conditions"}))
    assert grown["rules-0-conditions-TOTAL_FORMS"] == "3"
    assert grown["rules-0-conditions-1-value"] == "sandboxed, unverified"
    grown = form_of(officer.post(ADD, grown | {"_add": "rules"}))
    assert grown["rules-TOTAL_FORMS"] == "2"
    assert "rules-1-conditions-1-field" in grown
    assert not Policy.objects.filter(name=filled["name"]).exists()
    assert officer.post(ADD, grown).status_code == 302


def test_it_removes_a_rule_and_a_condition(officer: Client, policy: Policy) -> None:
    grown = form_of(
        officer.post(page_of(policy), form_of(officer.get(page_of(policy))) | {"_add": "rules"})
    )
    second = {
        "reason": "one more",
        "rules-1-name": "Everybody",
        "rules-1-action": "allow",
        "rules-1-always": "on",
        "rules-0-conditions-0-DELETE": "on",
    }
    assert officer.post(page_of(policy), grown | second).status_code == 302
    values = form_of(officer.get(page_of(policy)))
    assert values["rules-0-conditions-0-field"] == "sender.level"
    values |= {"reason": "gone", "rules-0-DELETE": "on", "rules-0-name": ""}
    assert officer.post(page_of(policy), values).status_code == 302
    newest = policy.versions.first()
    assert newest is not None
    assert [rule["name"] for rule in newest.document["rules"]] == ["Everybody"]


def test_it_turns_a_policy_off_instead_of_deleting_it(officer: Client, policy: Policy) -> None:
    assert officer.get(f"/admin/registry/policy/{policy.pk}/delete/").status_code == 403
    url = f"/admin/registry/policy/{policy.pk}/mode/"
    assert any("Say why" in e for e in errors_of(officer.post(url, {"mode": "off", "reason": ""})))
    assert officer.post(url, {"mode": "off", "reason": "no need"}).status_code == 302
    policy.refresh_from_db()
    assert policy.mode == "off"


def test_it_tells_the_history_with_who_why_and_what(officer: Client, policy: Policy) -> None:
    values = form_of(officer.get(page_of(policy)))
    values |= {"reason": "stricter", "rules-0-conditions-1-value": "sandboxed", "priority": "5"}
    assert officer.post(page_of(policy), values).status_code == 302
    page = text_of(officer.get(f"/admin/registry/policy/{policy.pk}/history/"))
    for said in ("stricter", "to be safe", "olive-", "priority: 100 → 5", "created with 1 rule"):
        assert said in page
    assert "no longer when sender level is one of sandboxed, unverified" in page
    assert "only when sender level is one of sandboxed" in page


def test_it_opens_an_old_version_to_put_it_in_force_again(officer: Client, policy: Policy) -> None:
    first = policy.versions.get()
    values = form_of(officer.get(page_of(policy))) | {"reason": "try", "priority": "5"}
    officer.post(page_of(policy), values)
    values = form_of(officer.get(f"{page_of(policy)}?version=1")) | {"reason": "back"}
    assert officer.post(page_of(policy), values).status_code == 302
    newest = policy.versions.first()
    assert newest is not None
    assert (newest.number, newest.document) == (3, first.document)


def test_it_shows_a_pasted_document_in_the_form_before_it_is_saved(
    officer: Client, name: str
) -> None:
    throttle = {"limit": 5, "per_seconds": 60}
    rule = {"name": "R", "action": "throttle", "always": True, "throttle": throttle}
    pasted = json.dumps({"name": name, "rules": [rule]})
    response = officer.post("/admin/registry/policy/import/", {"document": pasted})
    assert not Policy.objects.filter(name=name).exists()
    values = form_of(response) | {"reason": "pasted"}
    assert officer.post(ADD, values).status_code == 302
    document = Policy.objects.get(name=name).versions.get().document
    assert document["rules"][0]["throttle"] == throttle


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("{", "not JSON"),
        ('{"name": "x", "name": "y", "rules": []}', "name"),
        ('{"name": "x", "rules": [{"name": "R", "action": "allow"}]}', "has no conditions"),
        ('{"name": "x", "rules": [{"name": "R", "action": "escalate", "always": true}]}', "hold"),
        ("[]", "one policy is a JSON object"),
    ],
)
def test_rejects_a_pasted_document_that_is_none(
    officer: Client, document: str, problem: str
) -> None:
    response = officer.post("/admin/registry/policy/import/", {"document": document})
    assert any(problem in error for error in errors_of(response)), errors_of(response)


def test_it_offers_templates_that_all_save(officer: Client) -> None:
    page = text_of(officer.get(ADD))
    starters = re.findall(r'href="\?start=(\w+)"', page)
    assert {"baseline", "empty"} < set(starters)
    for starter in starters:
        if starter == "empty":
            continue
        values = form_of(officer.get(f"{ADD}?start={starter}"))
        values |= {"name": f"From {starter} {secrets.token_hex(4)}", "reason": "try"}
        assert officer.post(ADD, values).status_code == 302, starter


def test_rejects_officers_without_the_permission(policy: Policy) -> None:
    reader = officer_client(superuser=False, permissions=("view_policy",))
    page = text_of(reader.get(page_of(policy)))
    assert "deny when" in page
    assert '<form method="post"' not in page.partition('id="content"')[2]
    assert reader.get(ADD).status_code == 403
    assert reader.get("/admin/registry/policy/import/").status_code == 403
    url = f"/admin/registry/policy/{policy.pk}/mode/"
    assert reader.post(url, {"mode": "off", "reason": "mischief"}).status_code == 403


def test_rejects_officers_who_touch_what_is_mandatory(
    officer: Client, filled: dict[str, str]
) -> None:
    changer = officer_client(
        superuser=False, permissions=("view_policy", "change_policy", "add_policy")
    )
    values = filled | {"mandatory": "on", "mode": "enforce", "rules-0-conditions-1-value": "none"}
    values["rules-0-conditions-1-field"] = "sender.id"
    assert officer.post(ADD, values).status_code == 302
    policy = Policy.objects.get(name=filled["name"])
    assert policy.mandatory
    url = f"/admin/registry/policy/{policy.pk}/mode/"
    assert changer.post(url, {"mode": "off", "reason": "mischief"}).status_code == 403
    assert officer.post(url, {"mode": "off", "reason": "end of test"}).status_code == 302
    renamed = filled | {"name": f"{filled['name']} too", "mandatory": "on"}
    assert changer.post(ADD, renamed).status_code == 302
    assert not Policy.objects.get(name=renamed["name"]).mandatory
