"""An agent is registered, approved, suspended, resumed and revoked, and the trail says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atp.errors import (
    ATPError,
    IdentityInvalidId,
    IdentityNotActive,
    IdentityRevoked,
    IdentityUnknown,
    KeyRevoked,
    MalformedDocument,
)
from atp.trust.keys import PrivateKey
from registry.agents.actions import (
    approve_key,
    change_agent,
    issue_enrolment_token,
    refuse_key,
    register_agent,
    resume_agent,
    revoke_agent,
    revoke_key,
    suspend_agent,
)
from registry.agents.models import Agent, AgentKey, EnrolmentToken, Organisation
from registry.hub.actions import hub_id
from registry.hub.models import Hub
from registry.scores.models import Score
from registry.trail.models import Entry
from tests.registry.agent_cast import OFFICER, active, attest, enrol, kinds_about, register

pytestmark = pytest.mark.usefixtures("database")


def epoch() -> int:
    return Hub.objects.get().epoch


def status_of(agent: str) -> str:
    return Agent.objects.get(pk=agent).status


def test_it_registers_a_pending_agent() -> None:
    before = epoch()
    row = register(tags=["emea"], declared_capabilities=["b.c", "a.b", "b.c"])
    assert (row.status, row.declared_capabilities) == ("pending", ["a.b", "b.c"])
    assert [tag.name for tag in row.tags.all()] == ["emea"]
    assert "agent.created" in kinds_about(row.id)
    assert epoch() > before


@pytest.mark.parametrize("agent_id", ["*", "", "Alice", "a b", "-a", "a" * 129, "a\n", "ä", "hub"])
def test_rejects_an_id_that_is_none(agent_id: str) -> None:
    organisation = Organisation.objects.first()
    assert organisation is not None
    before = Entry.objects.filter(actor__startswith="officer:").count()
    with pytest.raises(IdentityInvalidId):
        register_agent(agent_id, organisation=organisation, owner_name="Ann", actor=OFFICER)
    assert Entry.objects.filter(actor__startswith="officer:").count() == before


def test_rejects_the_hubs_own_id_and_a_taken_one() -> None:
    row = register()
    for taken in (hub_id(), row.id):
        with pytest.raises(IdentityInvalidId):
            register_agent(taken, organisation=row.organisation, owner_name="Ann", actor=OFFICER)


@pytest.mark.parametrize(
    "fields",
    [
        {"declared_capabilities": ["Not One"]},
        {"sensitivity_floor": "secret"},
        {"minimum_level": "godlike"},
        {"minimum_score": -1},
        {"owner_name": ""},
        {"tags": ["Not A Tag"]},
    ],
)
def test_rejects_fields_that_mean_nothing(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedDocument):
        register(**fields)


def test_it_enters_what_changed_and_why() -> None:
    row = register()
    change_agent(row.id, {"owner_name": "Bea"}, tags=["x"], actor=OFFICER, reason="moved on")
    row.refresh_from_db()
    assert row.owner_name == "Bea"
    entry = Entry.objects.select_related("body").filter(kind="agent.changed").latest("position")
    body = entry.body.content().decode()
    assert entry.subject == row.id
    assert '"ownerName":"Ann"' in body
    assert '"ownerName":"Bea"' in body
    assert "moved on" in body


def test_it_enters_nothing_where_nothing_changed() -> None:
    row = register()
    before = kinds_about(row.id)
    change_agent(row.id, {"owner_name": row.owner_name}, actor=OFFICER, reason="a second look")
    assert kinds_about(row.id) == before


def test_rejects_a_change_of_what_is_fixed() -> None:
    row = register()
    with pytest.raises(MalformedDocument):
        change_agent(row.id, {"status": "active"}, actor=OFFICER, reason="short cut")
    assert status_of(row.id) == "pending"


def test_it_suspends_and_resumes() -> None:
    agent = active().agent
    attest(agent)
    trusted = Score.objects.filter(agent=agent).first()
    suspend_agent(agent, actor=OFFICER, reason="odd traffic")
    assert status_of(agent) == "suspended"
    newest = Score.objects.filter(agent=agent).first()
    assert newest is not None
    assert newest.total == 0
    resume_agent(agent, actor=OFFICER, reason="explained")
    assert status_of(agent) == "active"
    again = Score.objects.filter(agent=agent).first()
    assert trusted is not None
    assert again is not None
    assert again.total == trusted.total > 0


def test_it_resumes_an_agent_without_a_key_as_pending() -> None:
    row = register()
    suspend_agent(row.id, actor=OFFICER, reason="wait")
    resume_agent(row.id, actor=OFFICER, reason="go on")
    assert status_of(row.id) == "pending"


def test_it_revokes_for_good_with_keys_and_open_tokens() -> None:
    enrolled = active()
    issue_enrolment_token(enrolled.agent, actor=OFFICER)
    since = datetime.now(UTC) - timedelta(days=2)
    row = revoke_agent(enrolled.agent, actor=OFFICER, reason="stolen", compromised_since=since)
    assert (row.status, row.compromised_since) == ("revoked", since)
    key = AgentKey.objects.get(pk=enrolled.row.kid)
    assert key.status == "revoked"
    assert key.good_until_entry is not None
    assert Entry.objects.get(position=key.good_until_entry).kind == "agent.revoked"
    now = datetime.now(UTC)
    assert not EnrolmentToken.objects.open_at(now).filter(agent=row).exists()


@pytest.mark.parametrize("decide", [suspend_agent, resume_agent, revoke_agent])
def test_rejects_decisions_about_a_revoked_agent(decide: object) -> None:
    agent = active().agent
    revoke_agent(agent, actor=OFFICER, reason="gone")
    assert callable(decide)
    with pytest.raises(IdentityRevoked):
        decide(agent, actor=OFFICER, reason="once more")


def test_rejects_decisions_that_do_not_fit_the_status() -> None:
    agent = active().agent
    with pytest.raises(IdentityNotActive):
        resume_agent(agent, actor=OFFICER, reason="never suspended")
    suspend_agent(agent, actor=OFFICER, reason="x")
    with pytest.raises(IdentityNotActive):
        suspend_agent(agent, actor=OFFICER, reason="x")


@pytest.mark.parametrize("reason", ["", "   ", "x" * 301])
def test_rejects_a_decision_without_a_reason(reason: str) -> None:
    agent = active().agent
    with pytest.raises(MalformedDocument):
        suspend_agent(agent, actor=OFFICER, reason=reason)
    assert status_of(agent) == "active"


def test_rejects_an_unknown_agent() -> None:
    with pytest.raises(IdentityUnknown):
        suspend_agent("nobody-here", actor=OFFICER, reason="x")


def test_rejects_a_compromise_in_the_future_or_without_a_zone() -> None:
    agent = active().agent
    for since in (datetime.now(UTC) + timedelta(hours=1), datetime(2026, 1, 1)):  # noqa: DTZ001
        with pytest.raises(MalformedDocument):
            revoke_agent(agent, actor=OFFICER, reason="x", compromised_since=since)
    assert status_of(agent) == "active"


def test_it_retires_or_revokes_the_earlier_key() -> None:
    first = active()
    second = enrol(first.agent)
    approve_key(second.row.kid, actor=OFFICER)
    assert AgentKey.objects.get(pk=first.row.kid).status == "retired"
    third = enrol(first.agent)
    approve_key(third.row.kid, actor=OFFICER, revoke_earlier=True)
    statuses = dict(AgentKey.objects.filter(agent=first.agent).values_list("kid", "status"))
    assert statuses == {
        first.row.kid: "retired",
        second.row.kid: "revoked",
        third.row.kid: "active",
    }
    ended = AgentKey.objects.get(pk=second.row.kid)
    started = AgentKey.objects.get(pk=third.row.kid)
    assert ended.good_until_entry == started.good_from_entry


def test_it_refuses_a_key_which_never_comes_back() -> None:
    row = register()
    enrolled = enrol(row.id)
    refuse_key(enrolled.row.kid, actor=OFFICER, reason="another fingerprint")
    assert status_of(row.id) == "pending"
    with pytest.raises(KeyRevoked):
        approve_key(enrolled.row.kid, actor=OFFICER)
    with pytest.raises(ATPError, match=r"key\.in_use"):
        enrol(row.id, key=enrolled.key)


def test_it_revokes_what_was_rotated_from_a_compromised_key() -> None:
    enrolled = active()
    old = AgentKey.objects.get(pk=enrolled.row.kid)
    since = datetime.now(UTC) - timedelta(hours=1)
    keys = [PrivateKey.generate() for _ in range(3)]
    rows: list[AgentKey] = []
    for key, parent_index in zip(keys, (-1, 0, -1), strict=True):
        parent = old if parent_index < 0 else rows[parent_index]
        rows.append(
            AgentKey.objects.create(
                kid=key.kid,
                agent_id=old.agent_id,
                algorithm="EdDSA",
                jwk=key.public.jwk,
                status="active",
                rotated_from=parent,
            )
        )
    AgentKey.objects.filter(pk=keys[2].kid).update(enrolled_at=since - timedelta(days=1))
    revoke_key(old.kid, actor=OFFICER, reason="laptop lost", compromised_since=since)
    statuses = dict(AgentKey.objects.filter(agent=old.agent_id).values_list("kid", "status"))
    assert [statuses[key.kid] for key in keys] == ["revoked", "revoked", "active"]
    assert statuses[old.kid] == "revoked"
