"""Auditors with an engagement: a period, a scope, and a password that nobody else learns."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.test import Client

from registry.agents.models import Organisation
from registry.officers.actions import issue_api_token
from registry.officers.actor import Actor, pseudonym
from registry.officers.engagements import (
    Begun,
    begin_engagement,
    end_engagement,
    engagement_of_link,
    use_link,
)
from registry.officers.groups import OFFICERS, ensure_groups
from registry.officers.models import Engagement
from registry.trail.models import Entry
from tests.cast import make_organisation
from tests.registry.admin_cast import Browser, officer_client, text_of
from tests.registry.agent_cast import fresh
from tests.trail.readers import PROVENANCE, add, note, person

pytestmark = pytest.mark.usefixtures("database")
PASSWORD = "the auditor's own password"
YEAR = timedelta(days=365)


@pytest.fixture
def ours(database: None) -> Organisation:
    return make_organisation()


@pytest.fixture
def theirs(database: None) -> Organisation:
    return make_organisation()


def begin(*organisations: Organisation, everything: bool = False, **period: datetime) -> Begun:
    ensure_groups()
    now = datetime.now(UTC)
    values: dict[str, Any] = {"begins_at": now, "ends_at": now + YEAR, **period}
    return begin_engagement(
        fresh("auditor"),
        organisations=[one.uid for one in organisations],
        everything=everything,
        actor=Actor.of_user(person(OFFICERS)),
        **values,
    )


def signed_in(user: User) -> Client:
    client = Browser(HTTP_HOST="localhost")
    client.force_login(user)
    return client


def headers(user: User) -> dict[str, str]:
    return {"Authorization": f"Token {issue_api_token(user, 'feed', days=1).text}"}


def set_period(row: Engagement, begins: timedelta, ends: timedelta) -> None:
    now = datetime.now(UTC)
    Engagement.objects.filter(pk=row.pk).update(begins_at=now + begins, ends_at=now + ends)


# --- Setting up ----------------------------------------------------------------------------------


def test_it_is_set_up_on_one_page_without_a_password(ours: Organisation) -> None:
    officer, name = officer_client(), fresh("auditor")
    values = {"name": name, "organisations": [ours.pk], "ends_at": "2027-06-01T00:00"}
    shown = text_of(officer.post("/admin/registry/engagement/add/", values))
    (link,) = re.findall(r'id="link">[^<]*/engagement/([\w-]+)/', shown)
    account = get_user_model()._default_manager.get(username=name)
    assert not account.has_usable_password()
    assert link not in json.dumps(list(Engagement.objects.values()), default=str)

    auditor = Client(HTTP_HOST="localhost")
    page = f"/engagement/{link}/"
    assert name in text_of(auditor.get(page))
    weak = auditor.post(page, {"new_password1": "short", "new_password2": "short"})
    assert weak.status_code == 200
    passwords = {"new_password1": PASSWORD, "new_password2": PASSWORD}
    assert auditor.post(page, passwords).status_code == 302
    assert auditor.login(username=name, password=PASSWORD)
    assert auditor.get("/admin/registry/entry/").status_code == 200

    assert auditor.get(page).status_code == 404, "the link works once"
    other = {"new_password1": "another long password", "new_password2": "another long password"}
    assert Client(HTTP_HOST="localhost").post(page, other).status_code == 404
    account.refresh_from_db()
    assert account.check_password(PASSWORD)
    kinds = Entry.objects.filter(subject=pseudonym(account.pk)).order_by("position")
    found = list(kinds.values_list("kind", "actor"))
    assert ("engagement.opened", pseudonym(account.pk)) in found
    assert [kind for kind, _ in found if kind.startswith("engagement")] == [
        "engagement.begun",
        "engagement.opened",
    ]


def test_rejects_a_link_after_its_time_and_one_of_an_ended_engagement(ours: Organisation) -> None:
    late, ended = begin(ours), begin(ours)
    Engagement.objects.filter(pk=late.row.pk).update(link_expires_at=datetime.now(UTC))
    end_engagement(ended.row.pk, actor=Actor.hub(), reason="over")
    for begun in (late, ended):
        assert engagement_of_link(begun.secret) is None
        assert use_link(begun.secret, PASSWORD) is None
        answer = Client(HTTP_HOST="localhost").get(f"/engagement/{begun.secret}/")
        assert answer.status_code == 404


def test_rejects_an_engagement_by_those_who_may_not(ours: Organisation) -> None:
    few = officer_client(superuser=False, permissions=("view_engagement", "add_engagement"))
    assert few.get("/admin/registry/engagement/add/").status_code == 403


@pytest.mark.parametrize(
    "wrong",
    [
        {"ends_at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"begins_at": datetime(2120, 1, 1, tzinfo=UTC)},
    ],
)
def test_rejects_a_period_that_is_none(ours: Organisation, wrong: Any) -> None:
    from atp.errors import MalformedDocument

    with pytest.raises(MalformedDocument):
        begin(ours, **wrong)


def test_rejects_a_scope_that_is_none(ours: Organisation) -> None:
    from atp.errors import MalformedDocument

    for organisations, everything in (((), False), ((ours,), True)):
        with pytest.raises(MalformedDocument):
            begin(*organisations, everything=everything)


# --- The period ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begins", "ends", "status"),
    [
        (-timedelta(days=1), timedelta(days=1), 200),
        (-timedelta(days=2), -timedelta(days=1), 401),
        (timedelta(days=1), timedelta(days=2), 401),
    ],
)
def test_it_lets_in_only_while_it_runs(
    ours: Organisation, begins: timedelta, ends: timedelta, status: int
) -> None:
    begun = begin(ours)
    account = use_link(begun.secret, PASSWORD)
    browser, token = signed_in(account), headers(account)
    assert browser.get("/admin/registry/entry/").status_code == 200
    set_period(begun.row, begins, ends)
    client = Client(HTTP_HOST="localhost")
    runs = status == 200
    assert client.get(PROVENANCE, headers=token).status_code == status
    assert browser.get("/admin/registry/entry/").status_code == (200 if runs else 302)
    assert client.login(username=account.username, password=PASSWORD) is runs


def test_it_ends_at_once(ours: Organisation) -> None:
    begun = begin(ours)
    browser, token = signed_in(begun.row.account), headers(begun.row.account)
    boss = officer_client()
    page = f"/admin/registry/engagement/{begun.row.pk}/end/"
    assert boss.post(page, {"reason": "over"}).status_code == 302
    assert Client(HTTP_HOST="localhost").get(PROVENANCE, headers=token).status_code == 401
    assert browser.get("/admin/registry/entry/").status_code == 302


# --- The scope -----------------------------------------------------------------------------------


def sides(sender: Organisation, recipient: Organisation) -> int:
    return add(
        note(
            sender_organisation=sender.uid,
            recipient_organisation=recipient.uid,
            organisations=(sender.uid, recipient.uid),
            shared={"said": "to both"},
            for_sender={"said": "to the sender"},
            for_recipient={"said": "to the recipient"},
            personal={"said": "to nobody"},
        )
    )


def read(user: User, position: int) -> dict[str, dict[str, Any]]:
    """Return the entry's body as every way of reading gives it; empty where it gives none."""
    client, token = Client(HTTP_HOST="localhost"), headers(user)
    where: dict[str, Any] = {"indexFrom": position, "indexTo": position, "fields": "index,body"}
    listed = client.get(PROVENANCE, where, headers=token).json()["results"]
    single = client.get(f"{PROVENANCE}{position}/", headers=token)
    export = client.get(f"{PROVENANCE}export", {**where, "format": "ndjson"}, headers=token)
    chunks: Any = export  # a stream
    lines = b"".join(chunks).splitlines()
    return {
        "list": listed[0]["body"] if listed else {},
        "single": single.json()["body"] if single.status_code == 200 else {},
        "export": json.loads(lines[0])["body"] if lines else {},
    }


def said(body: dict[str, Any]) -> set[str]:
    return {section["said"] for section in body.values() if section}


def test_it_gives_a_scoped_auditor_the_sections_of_their_side(
    ours: Organisation, theirs: Organisation
) -> None:
    auditor = begin(ours).row.account
    for position, wanted in (
        (sides(ours, theirs), {"to both", "to the sender"}),
        (sides(theirs, ours), {"to both", "to the recipient"}),
        (sides(ours, ours), {"to both", "to the sender", "to the recipient"}),
        (sides(theirs, theirs), set()),
        (add(note(shared={"said": "to all"}, personal={"said": "to nobody"})), {"to all"}),
    ):
        for way, body in read(auditor, position).items():
            assert said(body) == wanted, way
        page = signed_in(auditor).get(f"/admin/registry/entry/{position}/change/")
        text = page.content.decode()
        assert page.status_code == (200 if wanted else 404)
        every = ("to both", "to the sender", "to the recipient", "to nobody", "to all")
        assert {words for words in every if words in text} == wanted
        listed = signed_in(auditor).get("/admin/registry/entry/", {"q": str(position)})
        assert (f"/entry/{position}/change/" in listed.content.decode()) is bool(wanted)


def test_it_gives_everything_to_an_auditor_of_everything(
    ours: Organisation, theirs: Organisation
) -> None:
    auditor = begin(everything=True).row.account
    position = sides(ours, theirs)
    for way, body in read(auditor, position).items():
        assert len(said(body)) == 4, way


def test_rejects_all_other_pages_for_a_scoped_auditor(ours: Organisation) -> None:
    """They show payloads and agents of all organisations."""
    browser = signed_in(begin(ours).row.account)
    for path in ("messaging/envelope/", "messaging/deadletter/", "registry/agent/", "auth/user/"):
        assert browser.get(f"/admin/{path}").status_code == 403, path
    assert browser.get("/admin/registry/apitoken/").status_code == 200
    assert browser.get("/api/v1/agents/").status_code == 403


def test_rejects_names_of_people_for_a_scoped_auditor(ours: Organisation) -> None:
    account = begin(ours).row.account
    path = f"/admin/registry/entry/who/{pseudonym(account.pk)}/"
    assert signed_in(account).get(path).status_code == 403
