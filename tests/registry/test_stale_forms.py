"""An officers' form is refused if what it was made from has changed, and it works once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import pytest
from django.contrib import admin
from django.db import connections
from django.test import Client

from registry.admin.pages import OfficerAdmin
from registry.agents.actions import create_organisation, revoke_agent
from registry.agents.models import Agent, EnrolmentToken, Organisation
from registry.attestations.models import Attestation
from registry.issuers.models import Issuer, IssuerKey
from registry.officers.models import ApiToken, SentForm
from registry.policies.actions import save_policy
from registry.policies.models import Policy
from registry.trail.models import Entry
from tests.registry.admin_cast import HIDDEN, form_of, officer_client, text_of
from tests.registry.agent_cast import OFFICER, active, attest, fresh, issuer, register

pytestmark = pytest.mark.usefixtures("database")
ADMIN = "/admin/registry"


@dataclass(frozen=True, slots=True)
class Tab:
    """A form that an officer has open: its URL, and the fields as they were when it opened."""

    browser: Client
    url: str
    fields: dict[str, str]

    @classmethod
    def open(cls, url: str, browser: Client | None = None) -> Tab:
        browser = browser or officer_client()
        return cls(browser, url, form_of(browser.get(url)))

    def send(self, **values: str) -> Any:
        return self.browser.post(self.url, {**self.fields, **values})


@dataclass(frozen=True, slots=True)
class Edit:
    """A form that edits a row: the narrowing, the unrelated edit, and the narrowed column."""

    url: str
    narrowing: dict[str, str]
    other: dict[str, str]
    now: Callable[[], Any]


def of_issuer() -> Edit:
    row = issuer()
    return Edit(
        f"{ADMIN}/issuer/{row.pk}/edit/",
        {"highest_level": "unverified"},
        {"longest_validity_days": "30"},
        lambda: Issuer.objects.get(pk=row.pk).highest_level,
    )


def of_agent() -> Edit:
    row = register()
    return Edit(
        f"{ADMIN}/agent/{row.pk}/edit/",
        {"minimum_level": "certified", "tags": "watched"},
        {"description": "only this"},
        lambda: (
            Agent.objects.get(pk=row.pk).minimum_level,
            [tag.name for tag in Agent.objects.get(pk=row.pk).tags.all()],
        ),
    )


def of_organisation() -> Edit:
    row = create_organisation(fresh("Org"), contact="the thief", actor=OFFICER)
    return Edit(
        f"{ADMIN}/organisation/{row.pk}/change/",
        {"contact": "the guard"},
        {"name": fresh("Org")},
        lambda: Organisation.objects.get(pk=row.pk).contact,
    )


def of_policy_mode() -> Edit:
    document = {"name": fresh("policy"), "mode": "monitor", "rules": []}
    row = save_policy(document, actor=OFFICER, reason="test")
    return Edit(
        f"{ADMIN}/policy/{row.pk}/mode/",
        {"mode": "off"},
        {"mode": "monitor"},
        lambda: Policy.objects.get(pk=row.pk).mode,
    )


@pytest.mark.parametrize("make", [of_issuer, of_agent, of_organisation, of_policy_mode])
def test_rejects_a_form_that_is_older_than_a_narrowing(make: Callable[[], Edit]) -> None:
    edit = make()
    early, late = Tab.open(edit.url), Tab.open(edit.url)
    assert early.send(**edit.narrowing, reason="an incident").status_code == 302
    narrowed = edit.now()
    text = text_of(late.send(**edit.other, reason="typed by hand"))
    assert "another person changed this after you had opened the form" in text
    assert "typed by hand" in text, "what was typed is kept"
    assert edit.now() == narrowed


def test_it_says_what_changed_at_its_field() -> None:
    edit = of_issuer()
    early, late = Tab.open(edit.url), Tab.open(edit.url)
    early.send(highest_level="unverified", reason="an incident")
    refused = late.send(longest_validity_days="30", reason="typed by hand")
    told = "Highest level was “certified” and is “unverified” now."
    assert text_of(refused).count(told) == 2, "above the form and at the field"
    corrected = form_of(refused) | {"highest_level": "unverified"}
    assert late.browser.post(edit.url, corrected).status_code == 302
    assert edit.now() == "unverified"


def test_it_refuses_a_resumption_of_another_suspension() -> None:
    url = f"{ADMIN}/agent/{active().agent}"
    agent = url.rsplit("/", 1)[1]
    Tab.open(f"{url}/suspend/").send(reason="a fault")
    late = Tab.open(f"{url}/resume/")
    Tab.open(f"{url}/resume/").send(reason="mended")
    Tab.open(f"{url}/suspend/").send(reason="a theft")
    assert "Status reason was “a fault” and is “a theft” now." in text_of(late.send(reason="late"))
    assert Agent.objects.get(pk=agent).status == "suspended"


def test_it_refuses_a_mode_over_rules_that_changed() -> None:
    document = {"name": fresh("policy"), "mode": "off", "rules": []}
    row = save_policy(document, actor=OFFICER, reason="test")
    late = Tab.open(f"{ADMIN}/policy/{row.pk}/mode/")
    rule = {"name": "all", "action": "allow", "always": True}
    save_policy({**document, "rules": [rule]}, actor=OFFICER, reason="draft", policy=row)
    assert "Version was “1” and is “2” now." in text_of(late.send(mode="enforce", reason="late"))
    assert Policy.objects.get(pk=row.pk).mode == "off"


@pytest.mark.parametrize("made_from", ["", "x", "of another page"])
def test_rejects_a_form_without_what_it_was_made_from(made_from: str) -> None:
    agent, browser = active().agent, officer_client()
    if made_from == "of another page":
        other = f"{ADMIN}/agent/{active().agent}/suspend/"
        made_from = Tab.open(other, browser).fields[HIDDEN]
    url = f"{ADMIN}/agent/{agent}/suspend/"
    assert "send the form again" in text_of(
        browser.post(url, {"reason": "drill", HIDDEN: made_from})
    )
    assert Agent.objects.get(pk=agent).status == "active"


def test_rejects_a_form_of_another_person() -> None:
    url = f"{ADMIN}/agent/{active().agent}/suspend/"
    fields = Tab.open(url).fields
    assert "send the form again" in text_of(
        officer_client().post(url, {**fields, "reason": "drill"})
    )


def test_a_form_that_was_refused_for_a_mistake_works_afterwards() -> None:
    tab = Tab.open(f"{ADMIN}/agent/{active().agent}/suspend/")
    assert "Say why" in text_of(tab.send(reason=""))
    assert tab.send(reason="drill").status_code == 302


def of_attestation() -> tuple[str, dict[str, str], Callable[[], int]]:
    agent, vouching = active().agent, issuer()
    values = {"issuer": str(vouching.pk), "level": "verified", "days": "30"}
    return (
        f"{ADMIN}/agent/{agent}/attest/",
        values,
        Attestation.objects.filter(agent=agent).count,
    )


def of_renewal() -> tuple[str, dict[str, str], Callable[[], int]]:
    agent = active().agent
    old = attest(agent)
    rows = Attestation.objects.filter(agent=agent).exclude(pk=old.pk)
    return f"{ADMIN}/attestation/{old.pk}/renew/", {}, rows.count


def of_enrolment_token() -> tuple[str, dict[str, str], Callable[[], int]]:
    agent = register().pk
    rows = EnrolmentToken.objects.filter(agent=agent)
    return f"{ADMIN}/agent/{agent}/invite/", {}, rows.count


def of_issuer_key() -> tuple[str, dict[str, str], Callable[[], int]]:
    row = issuer()
    count = IssuerKey.objects.filter(issuer=row).count
    return f"{ADMIN}/issuer/{row.pk}/add-key/", {"reason": "new year"}, lambda: count() - 1


def of_api_token() -> tuple[str, dict[str, str], Callable[[], int]]:
    name = fresh("token")
    rows = ApiToken.objects.filter(name=name)
    return f"{ADMIN}/apitoken/add/", {"name": name, "days": "1"}, rows.count


@pytest.mark.parametrize(
    "make", [of_attestation, of_renewal, of_enrolment_token, of_issuer_key, of_api_token]
)
def test_two_parallel_posts_of_one_form_make_one_thing(
    make: Callable[[], tuple[str, dict[str, str], Callable[[], int]]],
) -> None:
    url, values, count = make()
    tab = Tab.open(url)
    start = Barrier(2)
    browsers = []
    for _ in range(2):  # a test client is not safe for two threads; both carry one login
        browser = Client(HTTP_HOST="localhost")
        browser.cookies = tab.browser.cookies
        browsers.append(browser)

    def press(browser: Client) -> Any:
        start.wait(timeout=30)
        try:
            return browser.post(url, {**tab.fields, **values})
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(press, browsers))
    assert count() == 1
    refused = [a for a in answers if "This form was sent already" in a.content.decode()]
    assert len(refused) == 1


def test_the_second_press_leaves_no_entry() -> None:
    agent = active().agent
    tab = Tab.open(f"{ADMIN}/agent/{agent}/suspend/")
    assert tab.send(reason="drill").status_code == 302
    before = Entry.objects.filter(subject=agent).count()
    assert Entry.objects.filter(subject=agent).count() == before


def test_every_page_that_decides_carries_the_field() -> None:
    """A page with a form of its own has the hidden field, too: walk the URLs of all admins."""
    browser, agent = officer_client(), active().agent
    rows = {Agent: agent, Issuer: issuer().pk, Organisation: Organisation.objects.all()[0].pk}
    without, walked = [], 0
    for model, site in admin.site._registry.items():
        if not isinstance(site, OfficerAdmin):
            continue
        for pattern in site.get_urls():
            parts = str(pattern.pattern).rstrip("/")
            if parts.startswith("<") and parts.count("<") == 1 and model in rows:
                parts = f"{rows[model]}/{parts.rpartition('/')[2]}"
            if "<" in parts or parts.endswith(("history", "delete", "import", "autocomplete")):
                continue
            answer = browser.get(f"{ADMIN}/{model._meta.model_name}/{parts}/")
            if answer.status_code != 200 or 'class="submit-row"' not in answer.content.decode():
                continue  # no form to send
            fields = form_of(answer)
            walked += 1
            if HIDDEN not in fields and "version" not in fields:
                without.append(answer.request["PATH_INFO"])
    assert without == []
    assert walked > 10


def test_sent_forms_are_forgotten_after_they_can_not_be_sent_again() -> None:
    SentForm.objects.create(nonce=fresh("old"))
    SentForm.objects.update(sent_at="2020-01-01T00:00:00Z")
    revoked = active().agent
    Tab.open(f"{ADMIN}/agent/{revoked}/suspend/").send(reason="drill")
    assert not SentForm.objects.filter(sent_at__year=2020).exists()
    revoke_agent(revoked, actor=OFFICER, reason="end of test")
