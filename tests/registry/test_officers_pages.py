"""The officers' pages: each decision asks, takes a reason, and runs one action."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import Client

from atp.trust.fingerprint import fingerprint
from atp.trust.keys import PrivateKey
from registry.agents.actions import issue_enrolment_token, revoke_agent
from registry.agents.models import Agent, AgentKey, EnrolmentToken, Organisation
from registry.attestations.models import Attestation
from registry.issuers.models import Issuer
from registry.officers.actor import pseudonym
from registry.officers.groups import AUDITORS, OFFICERS, ensure_groups
from registry.officers.models import ApiToken
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.registry.admin_cast import Browser, text_of
from tests.registry.agent_cast import (
    OFFICER,
    active,
    attest,
    enrol,
    fresh,
    issuer,
    kinds_about,
    local,
    register,
)

pytestmark = pytest.mark.usefixtures("database")
ADMIN = "/admin/registry"


def browser(group: str) -> Client:
    """A logged-in person who may what the group may, and nothing more."""
    ensure_groups()
    user = get_user_model()._default_manager.create_user(fresh("olive"), is_staff=True)
    user.groups.set(Group.objects.filter(name=group))
    client = Browser(HTTP_HOST="localhost")
    client.force_login(user)
    return client


@pytest.fixture
def officer(database: None) -> Client:
    return browser(OFFICERS)


@pytest.fixture
def auditor(database: None) -> Client:
    return browser(AUDITORS)


def who(client: Client) -> str:
    return pseudonym(int(client.session["_auth_user_id"]))


def page(agent: str, *more: str) -> str:
    return "/".join([ADMIN, "agent", agent, *more, ""])


def post(client: Client, url: str, **values: Any) -> Any:
    return client.post(url, values, follow=True)


def test_it_registers_an_agent_without_json(officer: Client) -> None:
    agent = fresh("analyst")
    organisation = Organisation.objects.get(name="Default organisation")
    response = post(
        officer, f"{ADMIN}/agent/add/", id=agent, organisation=organisation.pk, owner_name="Ann",
        declared_capabilities="finance.read\r\nfinance.write, finance.read", tags="emea\r\nnew-tag",
        sensitivity_floor="internal", minimum_level="", minimum_score="0", parent="",
    )  # fmt: skip
    text = text_of(response)
    row = Agent.objects.get(pk=agent)
    assert row.declared_capabilities == ["finance.read", "finance.write"]
    assert sorted(tag.name for tag in row.tags.all()) == ["emea", "new-tag"]
    assert row.sensitivity_floor == "internal"
    assert "This agent has no key yet" in text
    created = Entry.objects.get(kind="agent.created", subject=agent)
    assert created.actor == who(officer)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"id": "Not An Id"}, "Use lower-case letters"),
        ({"id": "hub"}, "own name"),
        ({"declared_capabilities": "Not/One"}, "is not a capability"),
        ({"parent": "nobody-here"}, "no agent with this id"),
        ({"owner_name": ""}, "required"),
    ],
)
def test_rejects_a_registration_beside_the_form(
    officer: Client, values: dict[str, str], says: str
) -> None:
    organisation = Organisation.objects.get(name="Default organisation")
    fine = {
        "id": fresh("analyst"), "organisation": organisation.pk, "owner_name": "Ann",
        "sensitivity_floor": "public", "minimum_score": "0",
    }  # fmt: skip
    wanted = {**fine, **values}
    text = text_of(officer.post(f"{ADMIN}/agent/add/", wanted))
    assert says in text
    assert str(wanted["id"]) in text
    assert not Agent.objects.filter(pk=wanted["id"]).exists()


@pytest.mark.parametrize(
    ("url", "values", "field"),
    [
        ("agent", {"id": "an-agent", "declared_capabilities": "Not/One"}, "declared_capabilities"),
        ("agent", {"id": "an-agent", "tags": "Not/One"}, "tags"),
        ("issuer", {"capability_patterns": "*.read"}, "capability_patterns"),
        ("issuer", {"not_before": "2099-02-01T12:00"}, "not_after"),
        ("issuer", {"slug": "Not-Lower"}, "slug"),
        ("tag", {"name": "NOT-LOWER"}, "__all__"),
    ],
)
def test_rejects_what_an_action_refuses_at_its_field(
    officer: Client, url: str, values: dict[str, Any], field: str
) -> None:
    fine = {
        **issuer_values(), "organisation": Organisation.objects.latest("pk").pk,
        "owner_name": "Ann", "sensitivity_floor": "public", "minimum_score": "0",
    }  # fmt: skip
    answer = officer.post(f"{ADMIN}/{url}/add/", {**fine, **values})
    assert list(answer.context["form"].errors) == [field]


def test_it_shows_a_token_once_with_the_command(officer: Client) -> None:
    agent = register().id
    assert "shown once" in text_of(officer.get(page(agent, "invite")))
    assert not EnrolmentToken.objects.filter(agent=agent).exists()
    response = officer.post(page(agent, "invite"))
    text = text_of(response)
    token = re.search(r'<pre id="token">([A-Za-z0-9_-]{43})</pre>', text)
    assert token is not None
    assert "atp enroll --hub http://localhost --hub-id hub-" in text
    assert f"--agent {agent}" in text
    assert "no-store" in response.headers["Cache-Control"]
    assert token.group(1) not in text_of(officer.get(page(agent, "change")))


def test_it_approves_only_a_compared_fingerprint(officer: Client) -> None:
    enrolled = enrol(register().id)
    shown = fingerprint(enrolled.key.kid)
    assert shown in text_of(officer.get(page(enrolled.agent, "change")))
    url = page(enrolled.agent, "keys", enrolled.key.kid, "approve")
    assert shown in text_of(officer.get(url))
    assert "Compare the fingerprint" in text_of(officer.post(url))
    assert AgentKey.objects.get(pk=enrolled.key.kid).status == "pending"
    text = text_of(post(officer, url, compared="on"))
    assert "No valid attestation" in text
    assert Agent.objects.get(pk=enrolled.agent).status == "active"


def test_it_warns_of_a_token_tried_twice(officer: Client) -> None:
    enrolled = enrol(register().id)
    EnrolmentToken.objects.filter(agent=enrolled.agent).update(misused_at=enrolled.row.enrolled_at)
    assert "tried a second time" in text_of(officer.get(page(enrolled.agent, "change")))
    url = page(enrolled.agent, "keys", enrolled.key.kid, "approve")
    assert "tried a second time" in text_of(officer.get(url))


def test_it_attests_and_shows_the_score(officer: Client) -> None:
    agent = active(declared_capabilities=["a.b"]).agent
    values = {"issuer": local().pk, "level": "certified", "capabilities": "a.b", "days": "30"}
    text = text_of(post(officer, page(agent, "attest"), **values))
    assert "badge-valid" in text
    assert "attested as certified" in text
    assert Attestation.objects.get(agent=agent).capabilities == ["a.b"]


def test_rejects_an_attestation_over_the_limits_beside_the_form(officer: Client) -> None:
    agent, narrow = active().agent, issuer(level="unverified")
    values = {"issuer": narrow.pk, "level": "certified", "capabilities": "", "days": "30"}
    assert "may attest up to unverified" in text_of(officer.post(page(agent, "attest"), values))
    assert not Attestation.objects.filter(agent=agent).exists()


@pytest.mark.parametrize(
    ("decision", "status", "kind"),
    [
        ("suspend", "suspended", "agent.suspended"),
        ("revoke", "revoked", "agent.revoked"),
    ],
)
def test_it_ends_an_agent_with_a_reason(
    officer: Client, decision: str, status: str, kind: str
) -> None:
    agent = active().agent
    url = page(agent, decision)
    assert "Say why" in text_of(officer.post(url))
    assert Agent.objects.get(pk=agent).status == "active"
    assert "odd traffic" in text_of(post(officer, url, reason="odd traffic"))
    assert Agent.objects.get(pk=agent).status == status
    entry = Entry.objects.filter(subject=agent, kind=kind).get()
    assert entry.actor == who(officer)


def test_it_changes_nothing_on_get(officer: Client) -> None:
    agent = active().agent
    before = kinds_about(agent)
    for decision in ("suspend", "revoke", "invite", "attest", "edit"):
        assert officer.get(page(agent, decision)).status_code == 200
    assert kinds_about(agent) == before


def test_rejects_a_decision_from_another_site(database: None) -> None:
    agent = active().agent
    checking = Client(HTTP_HOST="localhost", enforce_csrf_checks=True)
    checking.force_login(_super())
    response = checking.post(page(agent, "revoke"), {"reason": "forged"})
    assert response.status_code == 403
    assert Agent.objects.get(pk=agent).status == "active"


def _super() -> Any:
    return get_user_model()._default_manager.create_superuser(fresh("root"))


def test_it_lets_auditors_look(auditor: Client) -> None:
    enrolled = active()
    attest(enrolled.agent)
    text = text_of(auditor.get(page(enrolled.agent, "change")))
    assert fingerprint(enrolled.key.kid) in text
    for word in ("Suspend", "Issue enrolment token", "Approve"):
        assert word not in text
    for url in ("agent", "agentkey", "issuer", "attestation", "organisation", "tag", "apitoken"):
        assert auditor.get(f"{ADMIN}/{url}/").status_code == 200
    assert auditor.get(f"{ADMIN}/issuer/{local().pk}/change/").status_code == 200
    assert auditor.get("/admin/").status_code == 200


def test_rejects_every_decision_of_an_auditor(auditor: Client) -> None:
    enrolled = enrol(active().agent)
    agent, kid = enrolled.agent, enrolled.key.kid
    row = attest(agent)
    anchor = issuer()
    urls = [
        *(page(agent, d) for d in ("edit", "invite", "attest", "suspend", "resume", "revoke")),
        *(page(agent, "keys", kid, d) for d in ("approve", "refuse", "revoke-key")),
        f"{ADMIN}/agent/add/", f"{ADMIN}/issuer/add/", f"{ADMIN}/organisation/add/",
        f"{ADMIN}/tag/add/", f"{ADMIN}/attestation/upload/",
        f"{ADMIN}/attestation/{row.jti}/renew/".replace("_", "_5F"),
        f"{ADMIN}/attestation/{row.jti}/revoke/".replace("_", "_5F"),
        *(f"{ADMIN}/issuer/{anchor.pk}/{d}/" for d in ("edit", "add-key", "suspend", "revoke")),
        f"{ADMIN}/agent/suspend-many/?id={agent}", f"{ADMIN}/agent/attest-many/?id={agent}",
    ]  # fmt: skip
    before = Entry.objects.filter(actor__startswith="officer:").count()
    for url in urls:
        for send in (auditor.get, auditor.post):
            response = send(url, {"reason": "x"}) if send == auditor.post else send(url)
            assert response.status_code == 403, url
    assert Entry.objects.filter(actor__startswith="officer:").count() == before


def test_it_deletes_nothing(database: None) -> None:
    client = Browser(HTTP_HOST="localhost")
    client.force_login(_super())
    agent = active().agent
    row = attest(agent)
    pages = {
        "agent": agent, "attestation": row.jti, "issuer": local().pk,
        "organisation": Organisation.objects.latest("pk").pk,
    }  # fmt: skip
    for model, key in pages.items():
        url = f"{ADMIN}/{model}/{key}/delete/".replace("_", "_5F")
        assert client.post(url, {"post": "yes"}).status_code == 403, model
    assert Agent.objects.filter(pk=agent).exists()


def test_it_finds_agents(officer: Client) -> None:
    waiting = enrol(register("zebra").id).agent
    tagged = register("zebra", tags=[fresh("tag")])
    listed = text_of(officer.get(f"{ADMIN}/agent/?q=zebra"))
    assert waiting in listed
    assert tagged.id in listed
    assert "key to approve" in listed
    only = text_of(officer.get(f"{ADMIN}/agent/?q=zebra&key=waiting"))
    assert tagged.id not in only
    tag = tagged.tags.get()
    assert tagged.id in text_of(officer.get(f"{ADMIN}/agent/?tags__id__exact={tag.pk}"))


def test_it_decides_about_many_and_tells_what_failed(officer: Client) -> None:
    good, ended = active().agent, active().agent
    post(officer, page(ended, "revoke"), reason="gone")
    chosen = {"action": "suspend_selected", "_selected_action": [good, ended]}
    asked = officer.post(f"{ADMIN}/agent/", chosen, follow=True)
    assert good in text_of(asked)
    url = asked.redirect_chain[-1][0]
    text = text_of(post(officer, url, reason="drill"))
    assert "Done for 1 of 2 agents" in text
    assert f"Agent {ended}: " in text
    assert Agent.objects.get(pk=good).status == "suspended"


def test_it_tells_what_waits(officer: Client) -> None:
    enrol(register().id)
    enrol(register().id)
    text = text_of(officer.get("/admin/"))
    assert "keys wait for their fingerprint" in text


def test_it_shows_why_an_envelope_was_denied(officer: Client) -> None:
    agent = active().agent
    body = {"code": "trust.score", "detail": "50 is below 70"}
    with transaction.atomic():
        draft = EntryDraft(
            kind=Kind.ENVELOPE_DENIED, sender=agent, recipient="bob", verdict="denied", shared=body
        )
        append([draft])
    text = text_of(officer.get(page(agent, "change")))
    assert "trust.score" in text
    assert "50 is below 70" in text


# --- Issuers, attestations, tokens -------------------------------------------------------------


def issuer_values(**other: Any) -> dict[str, Any]:
    name = fresh("issuer")
    return {
        "name": name, "slug": name, "parent": "", "highest_level": "verified",
        "capability_patterns": "finance.*\r\nhealth.read", "longest_validity_days": "30",
        "not_before": "", "not_after": "2099-01-31T12:00", "public_jwk": "", **other,
    }  # fmt: skip


def test_it_adds_an_issuer_and_accredits_one_below_it(officer: Client) -> None:
    values = issuer_values()
    assert "by this hub, encrypted" in text_of(post(officer, f"{ADMIN}/issuer/add/", **values))
    row = Issuer.objects.get(slug=values["slug"])
    assert row.capability_patterns == ["finance.*", "health.read"]
    assert row.not_after is not None
    assert row.not_after.isoformat() == "2099-01-31T12:00:00+00:00"
    below = issuer_values(parent=row.pk, highest_level="certified")
    text = text_of(officer.post(f"{ADMIN}/issuer/add/", below))
    assert "may attest up to certified, its parent only up to verified" in text
    post(officer, f"{ADMIN}/issuer/add/", **{**below, "highest_level": "unverified"})
    assert Issuer.objects.get(slug=below["slug"]).parent == row


def test_it_takes_a_pasted_public_key(officer: Client) -> None:
    refused = officer.post(f"{ADMIN}/issuer/add/", issuer_values(public_jwk="{"))
    assert "not a JWK" in text_of(refused)
    key = PrivateKey.generate()
    jwk = str(key.public.jwk).replace("'", '"')
    text = text_of(post(officer, f"{ADMIN}/issuer/add/", **issuer_values(public_jwk=jwk)))
    assert "elsewhere" in text
    assert key.kid in text


def test_it_suspends_an_issuer_and_shows_what_that_does(officer: Client) -> None:
    anchor = issuer()
    child = issuer(parent=anchor)
    agent = active().agent
    attest(agent, child)
    post(officer, f"{ADMIN}/issuer/{anchor.pk}/suspend/", reason="audit")
    assert "is suspended" in text_of(officer.get(f"{ADMIN}/issuer/{child.pk}/change/"))
    assert "issuer may not vouch" in text_of(officer.get(page(agent, "change")))
    post(officer, f"{ADMIN}/issuer/{anchor.pk}/resume/", reason="passed")
    assert "issuer may not vouch" not in text_of(officer.get(page(agent, "change")))


def test_it_offers_no_renewal_where_the_agent_is_revoked(officer: Client) -> None:
    row = attest(active().agent)
    url = f"{ADMIN}/attestation/{row.jti.replace('_', '_5F')}/change/"
    before = officer.get(url).content.decode()
    revoke_agent(row.agent_id, actor=OFFICER, reason="it is part of the play")
    after = officer.get(url).content.decode()

    assert ("Its agent is revoked" in before, "/renew/" in before) == (False, True)
    assert ("Its agent is revoked" in after, "/renew/" in after) == (True, False)


def test_it_renews_and_revokes_an_attestation(officer: Client) -> None:
    row = attest(active().agent)
    url = f"{ADMIN}/attestation/{row.jti.replace('_', '_5F')}"
    assert row.token in text_of(officer.get(f"{url}/change/"))
    post(officer, f"{url}/renew/", reason="")
    assert Attestation.objects.filter(agent=row.agent_id).count() == 2
    post(officer, f"{url}/revoke/", reason="left")
    row.refresh_from_db()
    assert row.revoked_reason == "left"


@pytest.mark.parametrize("superuser", [False, True])
def test_it_issues_api_tokens_for_oneself_only(officer: Client, superuser: bool) -> None:
    other = get_user_model()._default_manager.create_user(fresh("other"))
    if superuser:
        officer.force_login(_super())
    me = int(officer.session["_auth_user_id"])
    values = {"user": other.pk, "name": "x", "days": "1"}
    text = text_of(officer.post(f"{ADMIN}/apitoken/add/", values))
    assert re.search(r"Authorization: Token [A-Za-z0-9_-]{43}", text)
    assert not ApiToken.objects.filter(user=other).exists()
    row = ApiToken.objects.get(user=me)
    post(officer, f"{ADMIN}/apitoken/{row.pk}/revoke/")
    row.refresh_from_db()
    assert row.revoked_at is not None


def test_it_issues_and_revokes_an_auditor_s_own_token(auditor: Client) -> None:
    me = int(auditor.session["_auth_user_id"])
    text = text_of(auditor.post(f"{ADMIN}/apitoken/add/", {"name": "the SIEM", "days": "1"}))
    assert re.search(r"Authorization: Token [A-Za-z0-9_-]{43}", text)
    row = ApiToken.objects.get(user=me)
    post(auditor, f"{ADMIN}/apitoken/{row.pk}/revoke/")
    row.refresh_from_db()
    assert row.revoked_at is not None


def test_it_says_what_to_do_next(officer: Client) -> None:
    agent = register().id
    text = text_of(officer.get(page(agent, "change")))
    assert "This agent has no key yet" in text
    issue_enrolment_token(agent, actor=OFFICER)
    assert "The owner has an enrolment token" in text_of(officer.get(page(agent, "change")))
    enrolled = enrol(agent)
    assert "A key waits for your approval" in text_of(officer.get(page(agent, "change")))
    assert enrolled.row.status == "pending"
