"""A decision about many rows reaches each of them, and says what it did not do and why."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client

from registry.agents.actions import resume_agent, revoke_agent, suspend_agent
from registry.agents.models import Agent, Organisation
from registry.attestations.models import Attestation
from registry.bulk.actions import begin, carry_on, choose
from registry.bulk.models import BulkDecision
from registry.bulk.tasks import carry_on_decisions
from registry.change import ChangedMeanwhile
from registry.officers.actor import Actor
from registry.scores.models import Violation
from registry.trail.models import Entry
from tests.registry.admin_cast import Browser, form_of, officer_client, text_of
from tests.registry.agent_cast import OFFICER, active, fresh, issuer, register
from tests.registry.score_cast import make_agent, violate

pytestmark = pytest.mark.usefixtures("database")
AGENTS = "/admin/registry/agent/"
MANY = 205
ENDLESS = float("inf")


@pytest.fixture
def officer(database: None) -> User:
    user = get_user_model()._default_manager.create_user(fresh("olive"), is_staff=True)
    names = ("change_agent", "view_agent", "view_bulkdecision")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    return user


def signed_in(user: User) -> Client:
    client = Browser(HTTP_HOST="localhost")
    client.force_login(user)
    return client


def crowd(count: int) -> list[str]:
    """Agents of one organisation, pending, without keys."""
    organisation = Organisation.objects.create(name=fresh("Crowd"))
    ids = [fresh("crowd") for _ in range(count)]
    Agent.objects.bulk_create(
        Agent(id=pk, organisation=organisation, owner_name="Ann") for pk in ids
    )
    return sorted(ids)


def statuses(ids: list[str]) -> set[str]:
    return set(Agent.objects.filter(pk__in=ids).values_list("status", flat=True))


def select(client: Client, action: str, ids: list[str], *, url: str = AGENTS) -> str:
    """Choose rows on the list; return the URL of the page that asks."""
    response = client.post(url, {"action": action, "_selected_action": ids})
    assert response.status_code == 302
    return str(response["Location"])


def test_it_decides_about_all_of_them_in_the_background(officer: User) -> None:
    client, ids = signed_in(officer), crowd(MANY)
    organisation = Agent.objects.get(pk=ids[0]).organisation_id
    chosen = {"action": "suspend_selected", "select_across": "1", "_selected_action": ids[:1]}
    listed = f"{AGENTS}?organisation__id__exact={organisation}"
    asked = client.post(listed, chosen)["Location"]
    assert f"{MANY} agents: " in text_of(client.get(asked))
    answer = client.post(asked, {"reason": "an incident"})
    progress = answer["Location"]
    assert "/registry/bulkdecision/" in progress
    assert f"of {MANY}" in text_of(client.get(progress))
    carry_on_decisions()
    while "under way" in text_of(client.get(progress)):  # ends: each run does some of them
        carry_on_decisions()
    assert statuses(ids) == {"suspended"}
    assert f"{MANY} of {MANY}, {MANY} done" in text_of(client.get(progress))
    entries = Entry.objects.filter(kind="agent.suspended", subject__in=ids)
    assert entries.count() == MANY
    assert set(entries.values_list("actor", flat=True)) == {Actor.of_user(officer).name}


def test_it_lists_what_it_did_not_do_and_why(officer: User) -> None:
    client, ids = signed_in(officer), crowd(4)
    revoke_agent(ids[1], actor=OFFICER, reason="gone")
    suspend_agent(ids[2], actor=OFFICER, reason="before")
    text = text_of(
        client.post(select(client, "suspend_selected", ids), {"reason": "x"}, follow=True)
    )
    assert "Done for 2 of 4 agents" in text
    assert f"Agent {ids[1]}: this agent has been revoked" in text
    bulk = BulkDecision.objects.filter(made_by=officer).latest("pk")
    page = text_of(client.get(f"/admin/registry/bulkdecision/{bulk.pk}/change/"))
    assert f"<td>{ids[2]}</td><td>this agent is suspended already</td>" in page
    assert "2 done, 2 not done" in page


@pytest.mark.parametrize(
    ("action", "prepare", "status"),
    [
        ("resume_selected", suspend_agent, "pending"),
        ("revoke_selected", None, "revoked"),
    ],
)
def test_it_resumes_and_revokes_in_bulk(
    officer: User, action: str, prepare: Callable[..., object] | None, status: str
) -> None:
    client, ids = signed_in(officer), crowd(3)
    for pk in ids if prepare else ():
        prepare(pk, actor=OFFICER, reason="before")  # type: ignore[misc]  # not None here
    url = select(client, action, ids)
    assert client.post(url, {"reason": "decided"}).status_code == 302
    assert statuses(ids) == {status}


def test_it_keeps_the_time_of_a_compromise(officer: User) -> None:
    client, ids = signed_in(officer), crowd(2)
    values = {"reason": "stolen", "compromised_since": "2026-01-01T00:00"}
    client.post(select(client, "revoke_selected", ids), values)
    since = Agent.objects.get(pk=ids[0]).compromised_since
    assert since is not None
    assert since.isoformat() == "2026-01-01T00:00:00+00:00"


def test_it_attests_in_bulk() -> None:
    client, ids = officer_client(), [active().agent, active().agent]
    url, voucher = select(client, "attest_selected", ids), issuer()
    values = form_of(client.get(url)) | {"issuer": str(voucher.pk), "reason": "audited"}
    assert client.post(url, values).status_code == 302
    assert Attestation.objects.filter(agent__in=ids, issuer=voucher).count() == 2


def test_it_leaves_suspended_who_was_suspended_anew_after_the_choice(officer: User) -> None:
    client, ids = signed_in(officer), crowd(2)
    for pk in ids:
        suspend_agent(pk, actor=OFFICER, reason="a fault")
    url = select(client, "resume_selected", ids)
    resume_agent(ids[0], actor=OFFICER, reason="mended")
    suspend_agent(ids[0], actor=OFFICER, reason="a theft")
    text = text_of(client.post(url, {"reason": "all clear"}, follow=True))
    assert f"Agent {ids[0]}: It has changed since it was chosen" in text
    assert Agent.objects.get(pk=ids[0]).status_reason == "a theft"
    assert Agent.objects.get(pk=ids[1]).status == "pending"


def test_it_stops_when_the_officer_may_no_longer(officer: User) -> None:
    ids = crowd(3)
    bulk = choose("agent.suspend", ids, actor=Actor.of_user(officer))
    begin(bulk.pk, {"reason": "mischief"}, actor=Actor.of_user(officer))
    officer.is_active = False
    officer.save()
    assert carry_on(bulk.pk, seconds=ENDLESS)
    assert statuses(ids) == {"pending"}
    bulk.refresh_from_db()
    assert [pk for pk, _ in bulk.refusals] == ids
    assert "may not decide about it any more" in bulk.refusals[0][1]


def test_two_workers_decide_about_each_row_once(officer: User) -> None:
    ids = crowd(20)
    bulk = choose("agent.suspend", ids, actor=Actor.of_user(officer))
    begin(bulk.pk, {"reason": "drill"}, actor=Actor.of_user(officer))

    def work(_: int) -> bool:
        try:
            return carry_on(bulk.pk, seconds=ENDLESS)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [True, True]
    bulk.refresh_from_db()
    assert (bulk.done, bulk.refusals) == (20, [])
    assert Entry.objects.filter(kind="agent.suspended", subject__in=ids).count() == 20


def test_it_goes_on_where_it_stopped(officer: User) -> None:
    ids = crowd(5)
    bulk = choose("agent.suspend", ids, actor=Actor.of_user(officer))
    begin(bulk.pk, {"reason": "drill"}, actor=Actor.of_user(officer))
    assert not carry_on(bulk.pk, seconds=0)
    BulkDecision.objects.filter(pk=bulk.pk).update(position=3, done=3)  # a worker did so and died
    assert carry_on(bulk.pk, seconds=ENDLESS)
    assert statuses(ids[3:]) == {"suspended"}
    bulk.refresh_from_db()
    assert (bulk.done, bulk.ended_at is not None) == (5, True)


def test_rejects_a_second_beginning(officer: User) -> None:
    bulk = choose("agent.suspend", crowd(1), actor=Actor.of_user(officer))
    begin(bulk.pk, {"reason": "drill"}, actor=Actor.of_user(officer))
    with pytest.raises(ChangedMeanwhile, match="begun already"):
        begin(bulk.pk, {"reason": "drill"}, actor=Actor.of_user(officer))


@pytest.mark.parametrize("number", ["0", "x", "9" * 30, "-1"])
def test_it_knows_no_other_selections(officer: User, number: str) -> None:
    assert signed_in(officer).get(f"{AGENTS}suspend-many/?selection={number}").status_code == 404


@pytest.mark.parametrize("number", ["0", "x", "9" * 30, "-1"])
def test_it_knows_no_other_rows(number: str) -> None:
    url = f"/admin/registry/violation/close/?id={number}"
    assert officer_client().get(url).status_code == 404


def test_rejects_the_selection_of_another_officer(officer: User) -> None:
    url = select(signed_in(officer), "suspend_selected", crowd(1))
    assert officer_client().get(url).status_code == 404


def test_rejects_a_selection_for_another_decision(officer: User) -> None:
    client = signed_in(officer)
    url = select(client, "suspend_selected", crowd(1))
    assert client.get(url.replace("suspend-many", "revoke-many")).status_code == 404


@pytest.mark.parametrize("view", ["attest-many", "suspend-many", "resume-many", "revoke-many"])
def test_rejects_who_may_only_look(view: str) -> None:
    reader: Any = officer_client(superuser=False, permissions=("view_agent",))
    assert reader.get(f"{AGENTS}{view}/?id={register().pk}").status_code == 403


def test_it_closes_more_violations_than_one_page_waits_for() -> None:
    client, agent = officer_client(), make_agent()
    first = violate(agent, "low")
    Violation.objects.bulk_create(
        Violation(
            agent=agent, organisation=agent.organisation, severity="low", rule="r", at=first.at
        )
        for _ in range(MANY - 1)
    )
    ids = [str(pk) for pk in agent.violations.values_list("pk", flat=True)]
    url = select(client, "annul_selected", ids, url="/admin/registry/violation/")
    assert f"{MANY} violations: " in text_of(client.get(url))
    progress = client.post(url, {"reason": "a wrong rule"})["Location"]
    while "under way" in text_of(client.get(progress)):  # ends: each run does some of them
        carry_on_decisions()
    assert not agent.violations.filter(annulled_at=None).exists()
