"""Stored scores: when a row is written, when the trail hears of it, and that it can be repeated."""

from __future__ import annotations

from datetime import timedelta

import pytest

from registry.agents.models import Agent
from registry.attestations.models import Attestation
from registry.officers.actor import Actor
from registry.scores.actions import PERIODIC, recompute, restate
from registry.scores.models import Score
from registry.scores.querysets import recompute_stored, scores, thresholds_in_use
from registry.scores.tasks import recompute_scores
from registry.trail.models import Entry
from tests.registry.score_cast import NOW, attest, make_agent, violate

pytestmark = pytest.mark.usefixtures("database")
AT = NOW.timestamp()


def rows_of(agent: Agent) -> list[Score]:
    return list(Score.objects.filter(agent=agent).order_by("id"))


def entries_of(agent: Agent) -> list[Entry]:
    return list(Entry.objects.filter(kind="score.changed", subject=agent.id).order_by("position"))


@pytest.fixture
def agent() -> Agent:
    agent = make_agent()
    attest(agent)
    return agent


def test_it_stores_a_score_that_gives_the_same_number_again(agent: Agent) -> None:
    assert recompute([agent.id], "attestation.issued", now=AT + 0.7) == 1
    [row] = rows_of(agent)
    again = recompute_stored(row)
    assert (row.total, row.because) == (92, "attestation.issued")
    assert (again.total, dict(again.components)) == (row.total, row.components)
    assert list(again.reasons) == row.reasons


def test_it_stores_nothing_periodically_where_nothing_changed(agent: Agent) -> None:
    recompute([agent.id], "attestation.issued", now=AT)
    assert recompute([agent.id], PERIODIC, now=AT + 60) == 0
    assert len(rows_of(agent)) == 1


def test_it_stores_a_row_for_each_named_event(agent: Agent) -> None:
    recompute([agent.id], "attestation.issued", now=AT)
    recompute([agent.id], "key.rotated", now=AT)
    assert [row.because for row in rows_of(agent)] == ["attestation.issued", "key.rotated"]
    # The total did not move, so the trail has nothing to tell.
    assert len(entries_of(agent)) == 1


def test_it_enters_a_score_that_a_named_event_moved(agent: Agent) -> None:
    recompute([agent.id], "attestation.issued", now=AT)
    violate(agent, "high")
    recompute([agent.id], "violation.recorded", now=AT)
    entry = entries_of(agent)[-1]
    body = entry.body.read()
    assert (entry.score, entry.actor) == (69, Actor.hub().name)
    assert (body["before"], body["after"], body["because"]) == (92, 69, "violation.recorded")


def test_it_enters_a_periodic_change_only_across_a_threshold_in_use(agent: Agent) -> None:
    assert {70, 85} <= thresholds_in_use()
    recompute([agent.id], "attestation.issued", now=AT)
    assert recompute([agent.id], PERIODIC, now=(NOW + timedelta(days=235)).timestamp()) == 1
    assert len(entries_of(agent)) == 1  # from 92 to 89: no threshold lies between
    assert recompute([agent.id], PERIODIC, now=(NOW + timedelta(days=299)).timestamp()) == 1
    [_, entry] = entries_of(agent)
    body = entry.body.read()
    assert body["crossed"] == [85]


def test_it_counts_what_an_agent_demands_as_a_threshold(agent: Agent) -> None:
    picky = make_agent()
    Agent.objects.filter(pk=picky.pk).update(minimum_score=33)
    assert 33 in thresholds_in_use()


def test_it_recomputes_what_was_spawned_below(agent: Agent) -> None:
    child = make_agent(parent=agent, organisation=agent.organisation)
    attest(child)
    recompute([agent.id], "attestation.issued", now=AT)
    Attestation.objects.filter(agent=agent).update(revoked_at=NOW)
    recompute([agent.id], "attestation.revoked", now=AT)
    assert [row.total for row in rows_of(child)] == [92, 0]


def test_it_leaves_the_entries_to_the_caller_on_request(agent: Agent) -> None:
    [draft] = restate([agent.id], "attestation.issued", now=AT)
    assert (draft.subject, draft.score) == (agent.id, 92)
    assert entries_of(agent) == []


def test_it_finds_the_newest_row_of_each_agent(agent: Agent) -> None:
    other = make_agent()
    recompute([agent.id, other.id], "attestation.issued", now=AT)
    violate(agent, "critical")
    recompute([agent.id], "violation.recorded", now=AT)
    newest = scores().about([agent.id, other.id]).newest()
    assert dict(newest.values_list("agent_id", "total")) == {agent.id: 39, other.id: 0}


def test_it_tolerates_agents_that_are_gone() -> None:
    recompute_scores(["nobody-of-that-name"], PERIODIC)
    assert not Score.objects.filter(agent_id="nobody-of-that-name").exists()
