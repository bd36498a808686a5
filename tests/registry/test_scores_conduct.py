"""What traffic tells of an agent: signatures, good envelopes, violations."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from atp.errors import MalformedDocument
from registry.agents.actions import revoke_key
from registry.agents.models import Agent, AgentKey
from registry.scores.actions import (
    ViolationClosed,
    add_good_traffic,
    close_violation,
    forget_old_traffic,
    inputs_of,
    note_signatures,
    recompute,
    record_violations,
)
from registry.scores.models import Conduct, GoodTraffic, Score, Violation
from registry.trail.models import Entry
from tests.registry.agent_cast import OFFICER, active
from tests.registry.score_cast import NOW, attest, make_agent, make_organisation, violate

pytestmark = pytest.mark.usefixtures("database")
TODAY = NOW.date()


def window_of(agent: Agent) -> str:
    return Conduct.objects.get(agent=agent).signatures


def good_of(agent: Agent) -> int:
    return Conduct.objects.get(agent=agent).good_envelopes


def test_it_slides_the_window_of_signatures() -> None:
    agent = make_agent()
    note_signatures([(agent.id, True), (agent.id, False), (agent.id, True)])
    assert window_of(agent) == "101"
    note_signatures([(agent.id, True)] * 98)
    assert window_of(agent) == "01" + "1" * 98
    inputs = inputs_of([agent.id], NOW.timestamp())[agent.id]
    assert (inputs.signatures_good, inputs.signatures_total) == (99, 100)


def test_it_writes_nothing_for_a_full_window_of_good_ones() -> None:
    agents = [make_agent() for _ in range(3)]
    rows = [(agent.id, True) for agent in agents for _ in range(100)]
    note_signatures(rows)
    before = _written(agents)
    with CaptureQueriesContext(connection) as queries:
        note_signatures(rows)
    assert len(queries) == 1
    assert _written(agents) == before
    note_signatures([(agents[0].id, False)])
    assert _written(agents) != before


def test_it_counts_at_most_ten_a_day_and_counterparty() -> None:
    agent, one, other = make_agent(), make_agent(), make_agent()
    add_good_traffic([(agent.id, one.id, TODAY, 7), (agent.id, one.id, TODAY, 9)])
    add_good_traffic([(agent.id, one.id, TODAY, 5), (agent.id, other.id, TODAY, 4)])
    add_good_traffic([(agent.id, one.id, TODAY - timedelta(days=1), 2)])
    assert good_of(agent) == 10 + 4 + 2
    assert inputs_of([agent.id], NOW.timestamp())[agent.id].good_envelopes == 16


def test_it_counts_no_mail_among_friends() -> None:
    organisation = make_organisation()
    agent, friend = make_agent(organisation=organisation), make_agent(organisation=organisation)
    add_good_traffic([(agent.id, friend.id, TODAY, 5), (agent.id, "nobody-there", TODAY, 5)])
    assert not GoodTraffic.objects.filter(agent=agent).exists()


@pytest.mark.parametrize("late", [False, True], ids=["acknowledged before", "and afterwards"])
def test_it_counts_no_mail_signed_while_a_key_was_in_other_hands(late: bool) -> None:
    enrolled, other = active(), active(organisation=make_organisation())
    today = datetime.now(UTC)
    days = [(today - timedelta(days=ago)).date() for ago in (3, 2, 1)]
    rows = [(enrolled.agent, other.agent, day, 5) for day in days]
    if not late:
        add_good_traffic(rows)
    since = today - timedelta(days=2)
    revoke_key(enrolled.row.kid, actor=OFFICER, reason="laptop stolen", compromised_since=since)
    if late:
        add_good_traffic(rows)
    assert Conduct.objects.get(agent=enrolled.agent).good_envelopes == 5
    assert AgentKey.objects.get(pk=enrolled.row.kid).compromised_since == since
    tomorrow = (today + timedelta(days=1)).date()
    add_good_traffic([(enrolled.agent, other.agent, tomorrow, 4)])  # with its next key
    assert Conduct.objects.get(agent=enrolled.agent).good_envelopes == 9


def test_it_forgets_traffic_after_ninety_days() -> None:
    agent, other = make_agent(), make_agent()
    add_good_traffic([(agent.id, other.id, TODAY, 5)])
    add_good_traffic([(agent.id, other.id, TODAY + timedelta(days=1), 3)])
    forget_old_traffic([agent.id], TODAY + timedelta(days=90))
    assert good_of(agent) == 3
    assert GoodTraffic.objects.filter(agent=agent).count() == 1


def test_it_records_violations_and_computes_the_score_after_the_commit() -> None:
    agent = make_agent()
    rule = f"rule {secrets.token_hex(4)}"
    now = datetime.now(UTC)
    attest(agent, now=now)
    with transaction.atomic():
        record_violations([(agent.id, "high", rule, "m-1"), ("nobody-there", "low", rule, "")], now)
        assert not Score.objects.filter(agent=agent).exists()
    row = Violation.objects.get(rule=rule)
    assert (row.agent_id, row.severity, row.message_id) == (agent.id, "high", "m-1")
    assert row.organisation_id == agent.organisation_id
    [stored] = Score.objects.filter(agent=agent)
    assert stored.because == "violation.recorded"
    assert any(rule in reason for reason in stored.reasons)


def test_it_keeps_few_of_many_repeated_violations() -> None:
    agent = make_agent()
    now = datetime.now(UTC)
    for _ in range(3):
        record_violations([(agent.id, "low", "again and again", "")] * 15, now)
    record_violations([(agent.id, "high", "again and again", "")], now)
    severities = list(Violation.objects.filter(agent=agent).values_list("severity", flat=True))
    assert (severities.count("low"), severities.count("high")) == (20, 1)


def test_it_lifts_the_ceiling_when_an_officer_closes_a_critical_violation() -> None:
    agent = make_agent()
    now = datetime.now(UTC)
    attest(agent, now=now)
    violation = violate(agent, "critical", at=now - timedelta(days=9))
    assert recompute([agent.id], "violation.recorded") == 1
    close_violation(violation.pk, actor=OFFICER, reason="looked into it")
    newest, before = Score.objects.filter(agent=agent)
    assert before.total == 39 < newest.total
    entry = Entry.objects.get(kind="violation.closed", subject=agent.id)
    assert entry.actor == OFFICER.name
    violation.refresh_from_db()
    assert violation.closed_reason == "looked into it"


def test_rejects_closing_without_a_reason_and_closing_twice() -> None:
    violation = violate(make_agent(), "high")
    with pytest.raises(MalformedDocument):
        close_violation(violation.pk, actor=OFFICER, reason="  ")
    close_violation(violation.pk, actor=OFFICER, reason="dealt with")
    with pytest.raises(ViolationClosed):
        close_violation(violation.pk, actor=OFFICER, reason="dealt with")


def _written(agents: list[Agent]) -> object:
    """Return a value that changes with every write to the agents' conduct rows."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT total_changes()")
            return cursor.fetchone()
        ids = [agent.id for agent in agents]
        cursor.execute(
            "SELECT agent_id, xmin FROM registry_conduct WHERE agent_id = ANY(%s)", [ids]
        )
        return sorted(cursor.fetchall())
