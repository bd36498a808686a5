"""A violation that was a mistake is annulled: it stays on record and counts no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from atp.judging.scoring import score
from registry.agents.models import Agent
from registry.officers.actor import Actor, pseudonym
from registry.scores.actions import (
    VIOLATIONS_PER_DAY,
    ViolationAnnulled,
    annul_violation,
    close_violation,
    inputs_of,
    recompute,
    record_violations,
)
from registry.scores.models import Score, Violation
from registry.trail.models import Entry
from tests.registry.admin_cast import officer_client, text_of
from tests.registry.score_cast import attest, make_agent, make_organisation, violate

pytestmark = pytest.mark.usefixtures("database")
OFFICER = Actor(name="officer:0123456789ab")
LIST = "/admin/registry/violation/"


@pytest.fixture
def officer(database: None) -> Client:
    return officer_client()


@pytest.fixture
def agent(database: None) -> Agent:
    agent = make_agent()
    attest(agent, now=datetime.now(UTC))
    return agent


def total(agent: Agent) -> int:
    now = datetime.now(UTC).timestamp()
    return score(inputs_of([agent.id], now)[agent.id], now).total


def lately() -> datetime:
    return datetime.now(UTC) - timedelta(hours=1)


@pytest.mark.parametrize("severity", ["low", "medium", "high", "critical"])
def test_an_annulled_violation_counts_for_no_score_and_no_ceiling(
    agent: Agent, severity: str
) -> None:
    before = total(agent)
    rows = [violate(agent, severity, at=lately()) for _ in range(5)]
    assert total(agent) < before
    for row in rows:
        annul_violation(row.pk, actor=OFFICER, reason="the rule was wrong")
    assert total(agent) == before
    assert Score.objects.filter(agent=agent).latest("id").total == before


def test_a_closed_high_violation_keeps_its_ceiling_until_it_is_annulled(agent: Agent) -> None:
    row = violate(agent, "high", at=lately())
    close_violation(row.pk, actor=OFFICER, reason="the rule is off")
    assert total(agent) == 69
    annul_violation(row.pk, actor=OFFICER, reason="the rule was wrong")
    assert total(agent) == 92


def test_it_counts_no_more_for_parent_child_and_organisation() -> None:
    organisation = make_organisation()
    parent = make_agent(organisation=organisation)
    agent = make_agent(organisation=organisation, parent=parent)
    others = [parent, make_agent(organisation=organisation), make_agent(parent=agent)]
    for one in (agent, *others):
        attest(one, now=datetime.now(UTC))
    before = [total(one) for one in others]
    row = violate(agent, "critical", at=lately())
    assert all(total(one) < was for one, was in zip(others, before, strict=True))
    recompute([parent.id], "violation.recorded")
    annul_violation(row.pk, actor=OFFICER, reason="the rule was wrong")
    assert [total(one) for one in others] == before
    assert Score.objects.filter(agent=parent).latest("id").total == before[0]


def test_it_leaves_row_and_entries_and_adds_one(agent: Agent) -> None:
    row = violate(agent, "high", at=lately())
    close_violation(row.pk, actor=OFFICER, reason="the rule is off")
    annul_violation(row.pk, actor=OFFICER, reason="the rule was wrong")
    row.refresh_from_db()
    assert (row.closed_reason, row.annulled_reason) == ("the rule is off", "the rule was wrong")
    entry = Entry.objects.select_related("body").get(kind="violation.annulled", subject=agent.id)
    assert entry.body.read()["reason"] == "the rule was wrong"
    assert Entry.objects.filter(kind="violation.closed", subject=agent.id).exists()


def test_rejects_a_second_annulment(agent: Agent) -> None:
    row = violate(agent, "low", at=lately())
    annul_violation(row.pk, actor=OFFICER, reason="a mistake")
    with pytest.raises(ViolationAnnulled):
        annul_violation(row.pk, actor=OFFICER, reason="again")


def test_annulled_violations_take_no_room_of_those_that_count(agent: Agent) -> None:
    """Else whoever was wronged by a rule could break it freely for the rest of the day."""
    one = (agent.id, "low", "policy/rule", "")
    record_violations([one] * VIOLATIONS_PER_DAY, datetime.now(UTC))
    for row in Violation.objects.filter(agent=agent):
        annul_violation(row.pk, actor=OFFICER, reason="a mistake")
    record_violations([one], datetime.now(UTC))
    assert Violation.objects.filter(agent=agent, annulled_at=None).count() == 1


def test_officers_annul_on_the_page(officer: Client, agent: Agent) -> None:
    rows = [violate(agent, "high", at=lately()), violate(agent, "low", at=lately())]
    asked = officer.post(
        LIST, {"action": "annul_selected", "_selected_action": [row.pk for row in rows]}
    )
    assert "no ceiling" in text_of(officer.get(asked["Location"]))
    assert "Say why" in text_of(officer.post(asked["Location"], {"reason": ""}))
    assert officer.post(asked["Location"], {"reason": "the rule was wrong"}).status_code == 302
    assert total(agent) == 92
    page = text_of(officer.get(f"{LIST}{rows[0].pk}/change/"))
    assert "the rule was wrong. It counts for nothing." in page
    assert ">Annul</a>" not in page
    listed = text_of(officer.get(f"{LIST}?q={agent.id}&state=annulled"))
    assert listed.count("annulled 2") == 2
    assert "0 violations" in text_of(officer.get(f"{LIST}?q={agent.id}&state=closed"))
    user = pseudonym(int(officer.session["_auth_user_id"]))
    entries = Entry.objects.filter(kind="violation.annulled", subject=agent.id)
    assert [entry.actor for entry in entries] == [user, user]


def test_rejects_an_annulment_by_who_may_only_look(agent: Agent) -> None:
    row = violate(agent, "low", at=lately())
    reader = officer_client(superuser=False, permissions=("view_violation", "view_score"))
    assert reader.post(f"{LIST}annul/?id={row.pk}", {"reason": "mischief"}).status_code == 403
    assert ">Annul</a>" not in text_of(reader.get(f"{LIST}{row.pk}/change/"))
    row.refresh_from_db()
    assert row.annulled_at is None
