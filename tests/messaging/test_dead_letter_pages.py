"""The officers' pages of dead letters: the list, each one, and the form that redelivers."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, User
from django.db.models import F
from django.test import Client

from messaging.mail.dead_letters import Obstacle, redeliver
from messaging.models import DeadLetter, Delivery, Mailbox
from registry.agents.actions import suspend_agent
from registry.bulk.models import BulkDecision
from registry.bulk.tasks import carry_on_decisions
from registry.officers.actor import Actor
from registry.officers.groups import AUDITORS, OFFICERS, ensure_groups
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import OFFICER, Player, make_agent
from tests.messaging.conftest import LogIn
from tests.messaging.dead_mail import CODE, dead_letter
from tests.registry.admin_cast import Browser, form_of, officer_client, text_of

LIST = "/admin/messaging/deadletter/"
MANY = 205
REASON = "the handler was mended"


@pytest.fixture
def dead(log_in: LogIn, alice: Player, bob: Player) -> DeadLetter:
    return dead_letter(log_in, alice, bob)


def member_of(group: str) -> User:
    ensure_groups()
    users = get_user_model()._default_manager
    user = users.create_user(f"olive-{secrets.token_hex(6)}", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    return user


def signed_in(user: User) -> Client:
    client = Browser(HTTP_HOST="localhost")
    client.force_login(user)
    return client


@pytest.fixture
def officer(database: None) -> User:
    return member_of(OFFICERS)


@pytest.fixture
def client(officer: User) -> Client:
    return signed_in(officer)


def page_of(dead: DeadLetter) -> str:
    return f"{LIST}{dead.pk}/change/"


def again(*dead: DeadLetter) -> int:
    rows = Delivery.objects.filter(envelope_id__in=[one.envelope_id for one in dead])
    return rows.filter(redelivered=True).count()


# --- Reading -------------------------------------------------------------------------------------


def test_it_lists_a_dead_letter_and_finds_it_by_message_and_agent(
    client: Client, dead: DeadLetter
) -> None:
    for text in (dead.envelope.message_id, dead.recipient_id, dead.sender, f" {dead.sender} "):
        page = text_of(client.get(LIST, {"q": text}))
        assert page_of(dead) in page
        assert CODE in page
        assert "1 dead letter" in page
    for text in ("nobody", dead.sender[:-1], "%"):
        assert "No row matches" in text_of(client.get(LIST, {"q": text}))


def test_it_filters_by_state_type_and_code(
    client: Client, log_in: LogIn, alice: Player, bob: Player
) -> None:
    waiting, expired, done = (dead_letter(log_in, alice, bob) for _ in range(3))
    redeliver(done.pk, actor=OFFICER, reason=REASON)
    Delivery.objects.filter(pk=expired.pk).update(expires_at=datetime.now(UTC))
    Delivery.objects.filter(pk=expired.pk).update(code="my.own_code")

    def listed(**query: str) -> set[int]:
        page = text_of(client.get(LIST, {"q": alice.id, **query}))
        return {one.pk for one in (waiting, expired, done) if page_of(one) in page}

    assert listed() == {waiting.pk, expired.pk, done.pk}
    assert listed(state="open") == {waiting.pk}
    assert listed(state="expired") == {expired.pk}
    assert listed(state="redelivered") == {done.pk}
    assert listed(code=CODE) == {waiting.pk, done.pk}
    assert listed(code="other") == {expired.pk}
    assert listed(envelope__message_type="notification") == {waiting.pk, expired.pk, done.pk}
    assert listed(envelope__message_type="request") == set()
    assert listed(state="open", code="other") == set()


def test_it_says_what_an_empty_list_means(client: Client, dead: DeadLetter) -> None:
    Delivery.objects.exclude(refused_at=None).update(refused_at=None)
    assert "no agent has refused a message for good" in text_of(client.get(LIST))


@pytest.mark.parametrize("query", ["q=" + 201 * "x", "sender__regex=x", "envelope__kid=x"])
def test_rejects_other_lookups_than_those_of_its_filters(client: Client, query: str) -> None:
    assert client.get(f"{LIST}?{query}").status_code == 400


def test_it_explains_a_dead_letter(client: Client, dead: DeadLetter) -> None:
    page = text_of(client.get(page_of(dead)))
    for words in (dead.envelope.message_id, dead.recipient_id, dead.sender, "connected", CODE):
        assert words in page
    assert "Possible until it expires" in page
    assert f"redeliver/?id={dead.pk}" in page
    entry = Entry.objects.get(kind=Kind.DELIVERY_REFUSED, message_id=dead.envelope.message_id)
    assert f"{entry.index} delivery.refused" in page


def test_it_says_why_one_can_not_be_redelivered(client: Client, dead: DeadLetter) -> None:
    Delivery.objects.filter(pk=dead.pk).update(expires_at=datetime.now(UTC))
    page = text_of(client.get(page_of(dead)))
    assert Obstacle.EXPIRED in page
    assert "redeliver/?id=" not in page


def test_it_has_no_page_for_deliveries_that_are_no_dead_letters(
    client: Client, log_in: LogIn, dead: DeadLetter
) -> None:
    redeliver(dead.pk, actor=OFFICER, reason=REASON)
    waiting = Delivery.objects.get(envelope_id=dead.envelope_id, redelivered=True)
    for number in (str(waiting.pk), "0", "x", "9" * 30):
        assert client.get(f"{LIST}{number}/change/").status_code in (302, 404)
        assert client.get(f"{LIST}redeliver/?id={number}").status_code in (302, 404)


def test_the_first_page_and_the_agents_page_lead_to_it(client: Client, dead: DeadLetter) -> None:
    assert f"{LIST}?state=open" in text_of(client.get("/admin/"))
    agent = text_of(client.get(f"/admin/registry/agent/{dead.recipient_id}/change/"))
    assert f"{LIST}?q={dead.recipient_id}" in agent


# --- Redelivering --------------------------------------------------------------------------------


def test_an_officer_redelivers_one_with_a_reason(
    client: Client, officer: User, dead: DeadLetter
) -> None:
    url = f"{LIST}redeliver/?id={dead.pk}"
    asked = text_of(client.get(url))
    assert f"{dead.recipient_id}: 1 (" in asked
    assert "Done for 1 of 1 dead letter" in text_of(
        client.post(url, {"reason": REASON}, follow=True)
    )
    assert again(dead) == 1
    entry = Entry.objects.get(kind=Kind.DELIVERY_REDELIVERED, recipient=dead.recipient_id)
    assert entry.actor == Actor.of_user(officer).name
    page = text_of(client.get(page_of(dead)))
    assert Obstacle.DONE in page
    assert REASON in page


def test_rejects_a_redelivery_without_a_reason(client: Client, dead: DeadLetter) -> None:
    answer = client.post(f"{LIST}redeliver/?id={dead.pk}", {"reason": ""})
    assert answer.status_code == 200
    assert again(dead) == 0


def test_rejects_the_same_form_a_second_time(client: Client, dead: DeadLetter) -> None:
    url = f"{LIST}redeliver/?id={dead.pk}"
    values = {**form_of(client.get(url)), "reason": REASON}
    assert client.post(url, values).status_code == 302
    assert "sent already" in text_of(client.post(url, values))
    assert again(dead) == 1


def test_two_forms_for_one_redeliver_it_once(client: Client, dead: DeadLetter) -> None:
    url = f"{LIST}redeliver/?id={dead.pk}"
    forms = [{**form_of(client.get(url)), "reason": REASON} for _ in range(2)]
    client.post(url, forms[0])
    assert Obstacle.DONE in text_of(client.post(url, forms[1], follow=True))
    assert again(dead) == 1


def test_it_says_of_many_how_many_come_again_and_why_others_do_not(
    client: Client, log_in: LogIn, alice: Player, bob: Player
) -> None:
    carol = make_agent(name="carol")
    dead = [dead_letter(log_in, alice, bob) for _ in range(3)]
    dead += [dead_letter(log_in, carol, bob), dead_letter(log_in, alice, carol)]
    redeliver(dead[0].pk, actor=OFFICER, reason=REASON)
    suspend_agent(carol.id, actor=OFFICER, reason="a doubt")

    chosen = {"action": "redeliver_selected", "_selected_action": [one.pk for one in dead]}
    url = client.post(LIST, chosen)["Location"]
    page = text_of(client.get(url))
    assert "5 dead letters: " in page
    assert f"{bob.id}: 2 (" in page
    for obstacle in (Obstacle.DONE, Obstacle.SENDER, Obstacle.RECIPIENT):
        assert obstacle in page
    told = text_of(client.post(url, {"reason": REASON}, follow=True))
    assert "Done for 2 of 5 dead letters" in told
    assert f"Dead letter {dead[3].pk}: {Obstacle.SENDER}" in told
    assert again(*dead) == 3


def test_it_redelivers_more_than_one_page_waits_for(
    client: Client, officer: User, log_in: LogIn, alice: Player, bob: Player
) -> None:
    first = dead_letter(log_in, alice, bob)
    bob_box = {"recipient_id": bob.id, "stream": "mail", "sender": alice.id}
    box = Mailbox.objects.get(agent_id=bob.id, stream="mail")
    Mailbox.objects.filter(pk=box.pk).update(last_seq=F("last_seq") + MANY - 1)
    Delivery.objects.bulk_create(
        Delivery(
            **bob_box,
            envelope_id=first.envelope_id,
            seq=box.last_seq + 1 + number,
            expires_at=first.expires_at,
            state="refused",
            refused_at=first.refused_at,
            code=CODE,
        )
        for number in range(MANY - 1)
    )
    chosen = {"action": "redeliver_selected", "select_across": "1", "_selected_action": [first.pk]}
    url = client.post(f"{LIST}?q={alice.id}", chosen)["Location"]
    assert f"{MANY} dead letters: " in text_of(client.get(url))
    progress = client.post(url, {"reason": REASON})["Location"]
    while "under way" in text_of(client.get(progress)):  # ends: each run does some of them
        carry_on_decisions()
    assert again(first) == MANY
    assert BulkDecision.objects.filter(made_by=officer, done=MANY).exists()


# --- Who may not ---------------------------------------------------------------------------------


def test_rejects_a_redelivery_by_an_auditor(dead: DeadLetter) -> None:
    auditor = signed_in(user := member_of(AUDITORS))
    assert page_of(dead) in text_of(auditor.get(LIST, {"q": dead.sender}))
    assert "redeliver/?id=" not in text_of(auditor.get(page_of(dead)))
    assert auditor.get(f"{LIST}redeliver/?id={dead.pk}").status_code == 403
    assert auditor.post(f"{LIST}redeliver/?id={dead.pk}", {"reason": REASON}).status_code == 403
    chosen = {"action": "redeliver_selected", "_selected_action": [dead.pk]}
    auditor.post(LIST, chosen)
    assert again(dead) == 0
    assert not BulkDecision.objects.filter(made_by=user).exists()


def test_rejects_a_reader_without_any_right_to_traffic(dead: DeadLetter) -> None:
    stranger = officer_client(superuser=False, permissions=("change_agent", "view_agent"))
    for url in (LIST, page_of(dead), f"{LIST}redeliver/?id={dead.pk}"):
        assert stranger.get(url).status_code == 403
    agent = f"/admin/registry/agent/{dead.recipient_id}/change/"
    assert stranger.get(agent).status_code == 200


@pytest.mark.parametrize("route", ["add/", "{pk}/delete/"])
def test_rejects_other_changes_than_redelivery(
    client: Client, dead: DeadLetter, route: str
) -> None:
    assert client.post(f"{LIST}{route.format(pk=dead.pk)}").status_code in (403, 404)
    assert client.post(page_of(dead), {"state": "waiting"}).status_code in (200, 403, 405)
    dead.refresh_from_db()
    assert dead.state == "refused"
