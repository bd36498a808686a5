"""The registry's rows about an agent become the inputs of its score."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from atp.judging.scoring import score
from registry.agents.models import Agent, AgentKey
from registry.attestations.models import Attestation
from registry.issuers.standing import issuer_standing
from registry.scores.inputs import RegisteredAgents, inputs_of
from registry.scores.models import Violation
from registry.scores.offences import OFFENCES_MAX, VIOLATIONS_MAX
from registry.scores.querysets import current_profile
from tests.registry.score_cast import (
    NOW,
    attest,
    make_agent,
    make_issuer,
    make_organisation,
    violate,
)

pytestmark = pytest.mark.usefixtures("database")
AT = NOW.timestamp()


def total(agent: Agent) -> int:
    return score(inputs_of([agent.id], AT)[agent.id], AT).total


def test_it_counts_what_an_attested_agent_has_earned() -> None:
    agent = make_agent()
    attest(agent)
    inputs = inputs_of([agent.id], AT)[agent.id]
    assert (inputs.level, inputs.key_algorithm) == ("certified", "EdDSA")
    assert inputs.declared_capabilities == inputs.attested_capabilities
    # 40 + 20 + 15 + half of 15 without any traffic + 10
    assert total(agent) == 92


def test_it_leaves_unknown_agents_out() -> None:
    assert inputs_of(["nobody-of-that-name"], AT) == {}


def _revoke(attestation: Attestation) -> None:
    Attestation.objects.filter(pk=attestation.pk).update(revoked_at=NOW)


def _expire(attestation: Attestation) -> None:
    Attestation.objects.filter(pk=attestation.pk).update(expires_at=NOW - timedelta(seconds=1))


def _suspend_issuer(attestation: Attestation) -> None:
    attestation.issuer.status = "suspended"
    attestation.issuer.save()


def _suspend_anchor(attestation: Attestation) -> None:
    anchor = make_issuer()
    attestation.issuer.parent = anchor
    attestation.issuer.save()
    anchor.status = "suspended"
    anchor.save()


def _find_unreadable(attestation: Attestation) -> None:
    Attestation.objects.filter(pk=attestation.pk).update(unreadable_reason="bad signature")


def _retire_key(attestation: Attestation) -> None:
    AgentKey.objects.filter(kid=attestation.jkt).update(status="revoked")


@pytest.mark.parametrize(
    "spoil",
    [_revoke, _expire, _suspend_issuer, _suspend_anchor, _find_unreadable, _retire_key],
)
def test_it_gives_nothing_for_an_attestation_that_does_not_hold(
    spoil: Callable[[Attestation], None],
) -> None:
    agent = make_agent()
    attestation = attest(agent)
    assert total(agent) == 92
    spoil(attestation)
    assert inputs_of([agent.id], AT)[agent.id].level is None
    assert total(agent) == 0


def test_it_takes_the_highest_attestation_and_does_not_mix() -> None:
    agent = make_agent()
    attest(agent, "unverified")
    attest(agent, "verified")
    Attestation.objects.filter(agent=agent, level="verified").update(capabilities=["finance.read"])
    inputs = inputs_of([agent.id], AT)[agent.id]
    assert (inputs.level, inputs.attested_capabilities) == ("verified", ("finance.read",))


@pytest.mark.parametrize("status", ["pending", "suspended", "revoked"])
def test_it_scores_nothing_for_who_is_not_active(status: str) -> None:
    agent = make_agent(status=status)
    attest(agent)
    assert total(agent) == 0


def test_it_bounds_a_spawned_agent_by_what_is_above_it() -> None:
    grandparent = make_agent()
    parent = make_agent(parent=grandparent, organisation=grandparent.organisation)
    child = make_agent(parent=parent, organisation=grandparent.organisation)
    attest(grandparent, "unverified")
    attest(parent)
    attest(child)
    assert total(child) == total(parent) == total(grandparent) == 69


def test_it_trusts_nobody_in_a_circle_of_parents() -> None:
    one = make_agent()
    other = make_agent(parent=one)
    Agent.objects.filter(pk=one.pk).update(parent=other)
    attest(one)
    attest(other)
    assert total(one) == total(other) == 0


def test_it_charges_a_critical_violation_to_whoever_registers_afterwards() -> None:
    organisation = make_organisation()
    offender = make_agent(organisation=organisation)
    violate(offender, "critical")
    fresh = make_agent(organisation=organisation, created_at=NOW)
    for agent in (offender, fresh):
        attest(agent)
    assert total(fresh) == total(offender) == 39


def test_it_charges_older_agents_of_the_organisation_more_mildly() -> None:
    organisation = make_organisation()
    offender, colleague, stranger = (
        make_agent(organisation=organisation),
        make_agent(organisation=organisation),
        make_agent(),
    )
    for agent in (offender, colleague, stranger):
        attest(agent)
    violate(offender, "critical")
    assert (total(offender), total(colleague), total(stranger)) == (39, 69, 92)
    [shared] = inputs_of([colleague.id], AT)[colleague.id].violations
    assert shared[0] == "high"
    assert offender.id in shared[3]


def test_it_charges_parent_and_child_in_full_wherever_they_belong() -> None:
    parent = make_agent()
    child = make_agent(parent=parent)
    for agent in (parent, child):
        attest(agent)
    violate(child, "high")
    assert total(parent) == 69
    violate(parent, "critical")
    assert total(child) == 39


def test_it_keeps_the_ceiling_of_an_old_critical_violation_under_a_flood_of_others() -> None:
    agent = make_agent()
    attest(agent)
    violate(agent, "critical", at=NOW - timedelta(days=400))
    for number in range(150):
        violate(agent, "low", at=NOW - timedelta(minutes=number))
    inputs = inputs_of([agent.id], AT)[agent.id]
    assert len(inputs.violations) == 100
    assert total(agent) == 39


def _flood(agent: Agent, *, newest: datetime, every: timedelta = timedelta(seconds=1)) -> None:
    """More low violations than are read as they come."""
    Violation.objects.bulk_create(
        Violation(
            agent=agent,
            organisation=agent.organisation,
            severity="low",
            rule="flood",
            at=newest - n * every,
        )
        for n in range(OFFENCES_MAX + 1)
    )


def test_it_reads_no_more_of_a_flood_than_can_count() -> None:
    """Neither an agent's own past nor what a fresh one inherits is washed off by it."""
    organisation = make_organisation()
    flooder = make_agent(organisation=organisation)
    colleague = make_agent(organisation=organisation)
    fresh = make_agent(organisation=organisation, created_at=NOW - timedelta(days=3))
    for agent in (flooder, colleague, fresh):
        attest(agent)
    violate(colleague, "high", at=NOW - timedelta(days=2))
    violate(flooder, "low", at=NOW - timedelta(days=4))
    ids = [flooder.id, colleague.id, fresh.id]
    before = inputs_of(ids, AT)
    _flood(flooder, newest=NOW)
    with CaptureQueriesContext(connection) as queries:
        after = inputs_of(ids, AT)

    assert after[colleague.id] == before[colleague.id]  # low ones are nothing to older agents
    assert after[fresh.id] == before[fresh.id]
    assert len(after[flooder.id].violations) == VIOLATIONS_MAX
    reads = [q["sql"] for q in queries if Violation._meta.db_table in q["sql"]]
    unbounded = [sql for sql in reads if "LIMIT" not in sql]
    assert reads
    assert not [sql for sql in unbounded if flooder.id in sql]


def test_it_reads_many_agents_with_as_many_queries_as_one() -> None:
    agents = [make_agent() for _ in range(12)]
    for agent in agents:
        attest(agent)
        violate(agent, "low")
    counts = []
    for ids in ([agents[0].id], [agent.id for agent in agents]):
        with CaptureQueriesContext(connection) as queries:
            assert len(inputs_of(ids, AT)) == len(ids)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 7


def test_it_reads_conduct_and_violations_only_when_the_rest_is_given() -> None:
    agent = make_agent()
    attest(agent)
    kept: dict[str, Any] = {
        "profile": current_profile(),
        "standing": issuer_standing(AT),
        "registered": RegisteredAgents(),
    }
    assert inputs_of([agent.id], AT, **kept) == inputs_of([agent.id], AT)
    violate(agent, "high")
    with CaptureQueriesContext(connection) as queries:
        inputs = inputs_of([agent.id], AT, **kept)[agent.id]
    assert len(queries) == 2
    assert len(inputs.violations) == 1
    assert inputs == inputs_of([agent.id], AT)[agent.id]
