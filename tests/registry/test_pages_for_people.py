"""Officers' pages explain refusals, link back, and do no harm by accident."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from django.test import Client, RequestFactory
from django.utils.html import strip_tags
from django.views.defaults import server_error

from messaging.models import Node, Session
from registry.agents.actions import issue_enrolment_token
from registry.agents.models import Agent, EnrolmentToken
from registry.policies.models import RuleNotice
from registry.templatetags.registry_pages import Task
from registry.trail.actions import count_refusals, summarise_refusals
from tests.registry.admin_cast import officer_client, text_of
from tests.registry.agent_cast import (
    OFFICER,
    active,
    attest,
    enrol,
    issuer,
    local,
    register,
)

pytestmark = pytest.mark.usefixtures("database")
AGENTS = "/admin/registry/agent/"
LISTS = {
    "registry/agent": "Agents",
    "registry/apitoken": "API tokens",
    "registry/entry": "Entries",
    "registry/policy": "Policies",
    "registry/score": "Scores",
    "registry/violation": "Violations",
    "messaging/envelope": "Envelopes",
    "messaging/session": "Sessions",
    "auth/user": "Users",
}


def page(agent: str, *more: str) -> str:
    return "/".join([AGENTS.rstrip("/"), agent, *more, ""])


def refused_lately(client: Client, agent: str) -> str:
    text = text_of(client.get(page(agent, "change")))
    panel = text[text.index("<h2>Recent refusals</h2>") :]
    return " ".join(strip_tags(panel[: panel.index("</div>")].replace("<", " <")).split())


def test_it_tells_why_an_agent_can_not_connect() -> None:
    agent, client = active().agent, officer_client()
    assert "no login of this agent was refused" in refused_lately(client, agent)
    noon = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
    with transaction.atomic():
        count_refusals({(agent, "clock.not_yet"): 3, (agent, "admin.denied"): 1}, noon)
    assert "06-01 12:00 3 clock.not_yet The time of issue is in the future." in refused_lately(
        client, agent
    )
    while summarise_refusals(noon + timedelta(minutes=1)):
        pass
    told = refused_lately(client, agent)
    assert "06-01 12:00 3 clock.not_yet The time of issue is in the future." in told
    assert "admin.denied" not in told  # an officer of that name, not the agent


def test_it_shows_the_level_in_the_list_and_on_the_page() -> None:
    agent, client = active().agent, officer_client()
    assert "badge-certified" not in text_of(client.get(f"{AGENTS}?q={agent}"))
    attest(agent, level="certified")
    for url in (f"{AGENTS}?q={agent}", page(agent, "change")):
        assert '<span class="badge badge-certified">certified</span>' in text_of(client.get(url))


@pytest.mark.parametrize("address", LISTS)
def test_it_titles_a_list_by_what_is_in_it(address: str) -> None:
    text = text_of(officer_client().get(f"/admin/{address}/"))
    assert f"<h1>{LISTS[address]}</h1>" in text
    assert f"<title>{LISTS[address]} |" in text


def test_it_counts_in_words_that_fit() -> None:
    client = officer_client()
    assert [Task(n, "key waits", "keys wait", "").words for n in (1, 2)] == [
        "key waits",
        "keys wait",
    ]
    waiting = [enrol(register().id).agent, enrol(register().id).agent]
    assert "keys wait for their fingerprint" in text_of(client.get("/admin/"))
    chosen = {"action": "suspend_selected", "_selected_action": waiting[:1]}
    asked = client.post(AGENTS, chosen, follow=True)
    done = client.post(asked.redirect_chain[-1][0], {"reason": "drill"}, follow=True)
    assert "1 agent." in text_of(done)


# --- Decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["suspend", "revoke"])
def test_rejects_harm_that_was_confirmed_by_enter(decision: str) -> None:
    """Enter in a field presses a form's first button: here one that only asks again."""
    agent, client = active().agent, officer_client()
    text = text_of(client.get(page(agent, decision)))
    first = text[text.index("</header>") :].index('<button type="submit" name="by_enter"')
    assert first < text[text.index("</header>") :].index('<input type="submit"')
    asked = text_of(client.post(page(agent, decision), {"reason": "typed", "by_enter": "1"}))
    assert "Enter does not do it" in asked
    assert "typed" in asked
    assert Agent.objects.get(pk=agent).status == "active"
    text_of(client.post(page(agent, decision), {"reason": "typed"}, follow=True))
    assert Agent.objects.get(pk=agent).status != "active"


def test_it_labels_what_is_filled_in() -> None:
    enrolled, client = enrol(active().agent), officer_client()
    key = ("keys", enrolled.key.kid)
    for decision in (("suspend",), ("revoke",), ("attest",), ("edit",), (*key, "approve")):
        text = text_of(client.get(page(enrolled.agent, *decision)))
        form = text[text.index("<fieldset") : text.index("</fieldset>")]
        fields = re.findall(r'<(?:input|select|textarea)[^>]* id="(\w+)"', form)
        assert fields
        assert (
            re.findall(r'<label for="(\w+)"', form.replace(' class="vCheckboxLabel"', "")) == fields
        )


# --- Problems -------------------------------------------------------------------------------------


def leads_back(response: Any, status: int, says: str) -> bool:
    text = response.content.decode()
    assert response.status_code == status
    return says in text and '<a class="button" href="/admin/">' in text and "officers.css" in text


def test_it_leads_back_from_pages_that_are_not_there() -> None:
    client = officer_client()
    for url in ("/nowhere", page("nobody-here", "change")):
        assert leads_back(client.get(url), 404, "There is no such page")


def test_it_says_who_may_not() -> None:
    client = officer_client(superuser=False, permissions=("view_agent",))
    agent = register().id
    answer = client.get(page(agent, "suspend"))
    assert leads_back(answer, 403, "You may not do this")
    assert "You are signed in as <b>olive-" in answer.content.decode()
    assert "Sign out" in answer.content.decode()


def test_it_says_what_to_do_about_a_form_that_was_not_taken() -> None:
    browser = Client(HTTP_HOST="localhost", enforce_csrf_checks=True)
    answer = browser.post("/admin/login/", {"username": "x", "password": "y"})
    assert leads_back(answer, 403, "The form was not accepted")


def test_it_says_what_to_do_about_a_host_that_is_not_allowed() -> None:
    answer = Client(HTTP_HOST="elsewhere.example").get("/admin/login/")
    assert leads_back(answer, 400, "ATP_ALLOWED_HOSTS")


def test_it_admits_a_fault_of_its_own() -> None:
    answer = server_error(RequestFactory().get("/"))
    assert leads_back(answer, 500, "Something went wrong")
    assert "Traceback" not in json.dumps(answer.content.decode())


def test_an_empty_list_says_what_to_do_next() -> None:
    client = officer_client()
    nothing_fits = client.get("/admin/registry/rulenotice/?state=seen&policy=nobody")
    assert 'No row matches: <a href="?">show all</a>' in text_of(nothing_fits)
    with transaction.atomic():
        RuleNotice.objects.all().delete()
        empty = client.get("/admin/registry/rulenotice/")
        transaction.set_rollback(True)
    assert "A rule with the action Notify" in text_of(empty)


def test_each_choice_of_a_filter_has_a_text() -> None:
    agent, node, now = active().agent, uuid4(), datetime.now(UTC)
    Node.objects.create(id=node, name="n", channel="c", started_at=now, lease_until=now)
    for code in ("", "session.closed"):
        Session.objects.create(
            id=uuid4(), agent_id=agent, node_id=node, opened_at=now, close_code=code
        )
    for path in ("messaging/session/", "messaging/envelope/", "registry/agentkey/?_facets=True"):
        text = text_of(officer_client().get(f"/admin/{path}"))
        choices = re.findall(r'<a href="\?[^"]*">\s*([^<]*?)\s*</a>', text)
        assert ("none" in choices) == path.startswith("messaging/")
        assert choices
        assert "" not in choices


@pytest.mark.parametrize(
    ("path", "column", "empty"),
    [
        ("enrolmenttoken/?use=unused", "used_at", True),
        ("enrolmenttoken/?use=used", "used_at", False),
        ("enrolmenttoken/?misuse=none", "misused_at", True),
        ("enrolmenttoken/?misuse=tried-twice", "misused_at", False),
        ("issuer/?position=anchor", "parent_id", True),
        ("issuer/?position=below", "parent_id", False),
    ],
)
def test_it_filters_by_words(path: str, column: str, *, empty: bool) -> None:
    issue_enrolment_token(register().pk, actor=OFFICER)
    enrolled = active().agent
    EnrolmentToken.objects.filter(agent=enrolled).update(misused_at=datetime.now(UTC))
    issuer(parent=local())
    rows = list(officer_client().get(f"/admin/registry/{path}").context["cl"].result_list)
    assert {getattr(row, column) is None for row in rows} == {empty}


@pytest.mark.parametrize("model", ["policy", "scoringprofile"])
def test_each_form_can_be_left_without_saving(model: str) -> None:
    page = text_of(officer_client().get(f"/admin/registry/{model}/add/"))
    assert re.search(rf'<a href="/admin/registry/{model}/[^"]*">Cancel</a>', page)
