"""Officers read what earned and cost points, close violations, and change the profile."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.test import Client

from atp.errors import MalformedDocument
from registry.agents.models import Agent
from registry.change import ChangedMeanwhile
from registry.officers.actor import Actor
from registry.scores.actions import recompute, save_profile
from registry.scores.models import Score, ScoringProfile, Violation
from registry.scores.querysets import current_profile, recompute_stored
from registry.trail.models import Entry
from tests.registry.admin_cast import form_of, officer_client, text_of
from tests.registry.score_cast import attest, make_agent, violate

pytestmark = pytest.mark.usefixtures("database")
PROFILE = "/admin/registry/scoringprofile/add/"
OFFICER = Actor(name="officer:0123456789ab")


@pytest.fixture
def officer(database: None) -> Client:
    return officer_client()


@pytest.fixture
def agent(database: None) -> Agent:
    agent = make_agent()
    attest(agent, now=datetime.now(UTC))
    violate(agent, "medium", at=datetime.now(UTC))
    return agent


def test_it_explains_the_score_of_this_moment(officer: Client, agent: Agent) -> None:
    page = text_of(officer.get(f"/admin/registry/score/agent/{agent.id}/"))
    for said in (
        "Identity verification", "attested as certified", "1 medium violation today",
        "level certified", "no such thing",
    ):  # fmt: skip
        assert said in page
    assert not Score.objects.filter(agent=agent).exists()


def test_it_shows_that_a_stored_score_follows_from_its_inputs(
    officer: Client, agent: Agent
) -> None:
    recompute([agent.id], "attestation.issued")
    row = Score.objects.get(agent=agent)
    url = f"/admin/registry/score/{row.pk}/change/"
    assert "the number is the same" in text_of(officer.get(url))
    Score.objects.filter(pk=row.pk).update(total=row.total + 1)
    assert "does not follow from its inputs" in text_of(officer.get(url))
    Score.objects.filter(pk=row.pk).update(algorithm_version=999)
    assert "can't be computed again" in text_of(officer.get(url))


def test_it_lists_current_scores_and_earlier_ones_on_request(officer: Client, agent: Agent) -> None:
    recompute([agent.id], "attestation.issued")
    recompute([agent.id], "key.rotated")
    url = f"/admin/registry/score/?q={agent.id}"
    assert "attestation.issued</td>" not in text_of(officer.get(url))
    assert "attestation.issued</td>" in text_of(officer.get(f"{url}&which=all"))


@pytest.mark.parametrize(
    "path", ["score/agent/nobody-there/", "score/0/change/", "violation/0/change/"]
)
def test_it_says_not_found_for_what_is_not_there(officer: Client, path: str) -> None:
    assert officer.get(f"/admin/registry/{path}").status_code in (302, 404)


def test_it_closes_violations_with_one_reason(officer: Client, agent: Agent) -> None:
    rows = [violate(agent, "low"), violate(agent, "high")]
    chosen = {"action": "close_selected", "_selected_action": [row.pk for row in rows]}
    asked = officer.post("/admin/registry/violation/", chosen)
    assert asked.status_code == 302
    assert agent.id in text_of(officer.get(asked["Location"]))
    assert "Say why" in text_of(officer.post(asked["Location"], {"reason": ""}))
    assert not Violation.objects.filter(agent=agent).exclude(closed_at=None).exists()
    done = officer.post(asked["Location"], {"reason": "a test of ours"})
    assert done.status_code == 302
    closed = Violation.objects.filter(agent=agent).exclude(closed_at=None)
    assert {row.closed_reason for row in closed} == {"a test of ours"}
    assert len(closed) == 2
    assert Entry.objects.filter(kind="violation.closed", subject=agent.id).count() == 2
    page = text_of(officer.get(f"/admin/registry/violation/{rows[0].pk}/change/"))
    assert "a test of ours" in page


def test_rejects_closing_by_who_may_only_look(agent: Agent) -> None:
    row = violate(agent, "low")
    reader = officer_client(superuser=False, permissions=("view_violation", "view_score"))
    url = f"/admin/registry/violation/close/?id={row.pk}"
    assert reader.post(url, {"reason": "mischief"}).status_code == 403
    assert ">Close</a>" not in text_of(reader.get(f"/admin/registry/violation/{row.pk}/change/"))
    row.refresh_from_db()
    assert row.closed_at is None


def test_it_changes_the_profile_by_a_new_version(officer: Client, agent: Agent) -> None:
    recompute([agent.id], "attestation.issued")
    before = current_profile()
    values = form_of(officer.get(PROFILE))
    values |= {"level_ceilings-certified": "85", "reason": "careful"}
    try:
        assert officer.post(PROFILE, values).status_code == 302
        profile = current_profile()
        assert (profile.version, profile.level_ceilings["certified"]) == (before.version + 1, 85)
        newest, first = Score.objects.filter(agent=agent)
        assert (newest.total, newest.because) == (85, "profile.changed")
        assert recompute_stored(first).total == first.total > 85
        page = text_of(officer.get(f"/admin/registry/scoringprofile/{profile.version}/change/"))
        assert "<strong>85</strong>" in page
        assert "careful" in page
    finally:
        save_profile(before.to_dict(), actor=OFFICER, reason="end of test")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"weights-identity": "41"}, "weights must add up to 100"),
        ({"level_points-sandboxed": "99"}, "level_points.sandboxed must be a whole number"),
        ({"half_life_days": "0"}, "half_life_days must be a whole number from 1"),
        ({"critical_ceiling": "70"}, "critical_ceiling must not be above high_ceiling"),
        ({"weights-crypto": "-1"}, "greater than or equal to 0"),
        ({"reason": ""}, "Say why"),
    ],
)
def test_rejects_a_profile_that_contradicts_itself(
    officer: Client, change: dict[str, str], problem: str
) -> None:
    count = ScoringProfile.objects.count()
    values = form_of(officer.get(PROFILE)) | {"reason": "try"} | change
    assert problem in text_of(officer.post(PROFILE, values))
    assert ScoringProfile.objects.count() == count


def test_rejects_a_profile_made_on_one_that_is_no_longer_in_force() -> None:
    with pytest.raises(ChangedMeanwhile):
        save_profile({}, actor=OFFICER, reason="late", expected_version=0)
    with pytest.raises(MalformedDocument):
        save_profile({"nonsense": 1}, actor=OFFICER, reason="wrong")
