"""Signing in to the admin, over HTTP, as officers and password guessers do."""

from __future__ import annotations

import uuid
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction

from registry.admin.officers.login import (
    BROWSER_MAX_CHARS,
    MOST_ANYWHERE,
    MOST_FAILURES,
    MOST_OF_NETWORK,
    account_name,
    network_name,
    sign_in_limit,
)
from registry.admin.officers.sign_in_limit import MOST_UNDER_WAY
from registry.officers.actor import pseudonym
from registry.trail.actions import count_refusals, summarise_refusals
from registry.trail.kinds import Kind
from registry.trail.models import Entry, RefusalCount, RefusedSignIn
from registry.trail.refused_sign_ins import MOST_PLACES, note_refused_sign_in
from tests.conftest import LiveHub

PASSWORD = "a long enough password"


@pytest.fixture
def officer(database: None) -> str:
    return _officer()


def _officer() -> str:
    name = f"officer-{uuid.uuid4().hex[:8]}"
    get_user_model()._default_manager.create_user(name, password=PASSWORD, is_staff=True)
    return name


def _browser(hub: LiveHub, *, address: str = "127.0.0.1") -> httpx.Client:
    """A browser with its cookies, somewhere; the whole of 127/8 is this machine."""
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=hub.http_url, follow_redirects=True, transport=transport)


def _submit(browser: httpx.Client, name: str, password: str) -> httpx.Response:
    page = browser.get("/admin/login/")
    token = page.text.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
    return browser.post(
        "/admin/login/?next=/admin/",
        data={"username": name, "password": password, "csrfmiddlewaretoken": token},
        headers={"Referer": f"{browser.base_url}/admin/login/"},
    )


def _log_in(hub: LiveHub, name: str, password: str, **where: str) -> httpx.Response:
    with _browser(hub, **where) as browser:
        return _submit(browser, name, password)


def _signed_in(answer: httpx.Response) -> bool:
    return answer.url.path == "/admin/"


def _guessed_from_everywhere(name: str, times: int) -> None:
    """Failures as they are counted, in this minute and in the next, in which the test may end."""
    now = datetime.now(UTC)
    for moment in (now, now + timedelta(minutes=1)):
        with transaction.atomic():
            count_refusals({(account_name(name), Kind.ADMIN_DENIED): times}, moment)


def test_it_enters_who_signed_in_by_pseudonym(hub: LiveHub, officer: str) -> None:
    user = get_user_model()._default_manager.get(username=officer)
    answer = _log_in(hub, officer, PASSWORD)
    assert answer.url.path == "/admin/"
    (entry,) = Entry.objects.filter(kind="admin.login", actor=pseudonym(user.pk))
    assert officer.encode() not in bytes(entry.leaf)


def test_it_keeps_address_and_browser_of_a_sign_in_in_a_section_of_its_own(
    hub: LiveHub, officer: str
) -> None:
    user = get_user_model()._default_manager.get(username=officer)
    with _browser(hub, address="127.0.0.16") as browser:
        browser.headers["User-Agent"] = "Somebody's browser " + 300 * "x"
        assert _signed_in(_submit(browser, officer, PASSWORD))
    (entry,) = Entry.objects.filter(kind="admin.login", actor=pseudonym(user.pk))
    said = entry.body.read("personal")
    assert said["address"] == "127.0.0.16"
    assert said["browser"].startswith("Somebody's browser")
    assert len(said["browser"]) == BROWSER_MAX_CHARS
    assert b"127.0.0.16" not in bytes(entry.leaf) + entry.body.content("shared")


def test_it_keeps_where_refused_sign_ins_came_from(hub: LiveHub) -> None:
    name, address = f"nobody-{uuid.uuid4().hex[:8]}", "127.0.0.17"
    for agent in ("one", "two", "two"):
        with _browser(hub, address=address) as browser:
            browser.headers["User-Agent"] = agent
            _submit(browser, name, "wrong")
    while summarise_refusals(datetime.now(UTC) + timedelta(minutes=1)):
        pass
    counted: Counter[tuple[str, str]] = Counter()
    for entry in Entry.objects.filter(kind="refusals.counted", sender=account_name(name)):
        assert address.encode() not in bytes(entry.leaf) + entry.body.content("shared")
        for place in entry.body.read("personal")["from"]:
            counted[place["address"], place["browser"]] += place["count"]
    assert counted == {(address, "one"): 1, (address, "two"): 2}
    assert not RefusedSignIn.objects.filter(name=account_name(name)).exists()


def test_it_keeps_no_more_places_than_it_has_room_for(hub: LiveHub) -> None:
    """Whoever guesses chooses the name of the browser."""
    name, now = account_name(uuid.uuid4().hex), datetime.now(UTC)
    for number in range(3 * MOST_PLACES):
        with transaction.atomic():
            note_refused_sign_in(name, now, address="192.0.2.1", browser=str(number))
    assert RefusedSignIn.objects.filter(name=name).count() == MOST_PLACES


@pytest.mark.parametrize("exists", [True, False])
def test_rejects_further_guesses_alike_for_accounts_that_exist_and_that_do_not(
    hub: LiveHub, officer: str, exists: bool
) -> None:
    name = officer if exists else f"nobody-{uuid.uuid4().hex[:8]}"
    # So many that one of the at most two minutes they fall into sees too many of them.
    answers = [_log_in(hub, name, "wrong") for _ in range(2 * MOST_FAILURES + 2)]
    assert any("Too many failed attempts" in answer.text for answer in answers)
    assert all(answer.url.path == "/admin/login/" for answer in answers)


def test_it_keeps_no_officer_out_because_somebody_guesses_elsewhere(
    hub: LiveHub, officer: str
) -> None:
    for _ in range(2 * MOST_FAILURES + 2):
        answer = _log_in(hub, officer, "wrong", address="127.0.0.2")
        if "Too many failed attempts" in answer.text:
            break
    assert not _signed_in(_log_in(hub, officer, PASSWORD, address="127.0.0.2"))
    assert _signed_in(_log_in(hub, officer, PASSWORD))


def test_rejects_guesses_from_many_addresses_but_not_a_browser_that_was_here(
    hub: LiveHub, officer: str
) -> None:
    with _browser(hub) as known, _browser(hub) as other:
        assert _signed_in(_submit(known, officer, PASSWORD))
        colleague = _officer()
        assert _signed_in(_submit(other, colleague, PASSWORD))
        for browser in (known, other):
            del browser.cookies[settings.SESSION_COOKIE_NAME]
        _guessed_from_everywhere(officer, MOST_ANYWHERE)

        assert "Too many failed attempts" in _log_in(hub, officer, PASSWORD).text
        assert "Too many failed attempts" in _submit(other, officer, PASSWORD).text
        assert _signed_in(_submit(known, officer, PASSWORD))


def test_it_takes_fewer_guesses_the_longer_they_go_on(hub: LiveHub, officer: str) -> None:
    patient = _officer()
    _guessed_from_everywhere(patient, MOST_ANYWHERE // 2 - 1)
    assert _signed_in(_log_in(hub, patient, PASSWORD))

    for minutes_ago in (2, 1):
        before = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        with transaction.atomic():
            count_refusals({(account_name(officer), Kind.ADMIN_DENIED): 1}, before)
        while summarise_refusals(datetime.now(UTC)):
            pass
    _guessed_from_everywhere(officer, MOST_ANYWHERE // 2 - 1)
    assert "Too many failed attempts" in _log_in(hub, officer, PASSWORD).text


def test_rejects_more_sign_ins_of_one_network_at_a_time_than_people_need(
    hub: LiveHub, officer: str
) -> None:
    """Before anything is hashed; other networks, and browsers that were here, go on."""
    address = "127.0.0.7"
    with _browser(hub, address=address) as known, ExitStack() as inside:
        assert _signed_in(_submit(known, officer, PASSWORD))
        del known.cookies[settings.SESSION_COOKIE_NAME]
        assert all(
            inside.enter_context(sign_in_limit.counting(address)) for _ in range(MOST_UNDER_WAY)
        )

        refused = _log_in(hub, f"nobody-{uuid.uuid4().hex[:8]}", "wrong", address=address)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
        assert _signed_in(_submit(known, officer, PASSWORD))
        assert _signed_in(_log_in(hub, officer, PASSWORD, address="127.0.0.8"))
    assert _signed_in(_log_in(hub, officer, PASSWORD, address=address))


def test_rejects_guesses_of_one_network_over_many_names(hub: LiveHub, officer: str) -> None:
    address = "127.0.0.9"
    with _browser(hub, address=address) as known:
        assert _signed_in(_submit(known, officer, PASSWORD))
        del known.cookies[settings.SESSION_COOKIE_NAME]
        now = datetime.now(UTC)
        for moment in (now, now + timedelta(minutes=1)):
            with transaction.atomic():
                counts = {(network_name(address), str(Kind.ADMIN_DENIED)): MOST_OF_NETWORK}
                count_refusals(counts, moment)

        assert "from your network" in _log_in(hub, _officer(), PASSWORD, address=address).text
        assert _signed_in(_submit(known, officer, PASSWORD))
        assert _signed_in(_log_in(hub, _officer(), PASSWORD, address="127.0.0.10"))


def test_it_counts_a_failure_for_the_network_it_came_from(hub: LiveHub) -> None:
    address = "127.0.0.11"
    for _ in range(2):
        _log_in(hub, f"nobody-{uuid.uuid4().hex[:8]}", "wrong", address=address)
    rows = RefusalCount.objects.filter(agent=network_name(address))
    assert sum(row.count for row in rows) == 2


def test_rejects_more_sign_ins_of_one_account_at_a_time_in_known_browsers(
    hub: LiveHub, officer: str
) -> None:
    """Who has signed in once can't make the hub hash without limit, before everybody else."""
    with _browser(hub, address="127.0.0.12") as known, ExitStack() as inside:
        assert _signed_in(_submit(known, officer, PASSWORD))
        del known.cookies[settings.SESSION_COOKIE_NAME]
        name = account_name(officer)
        assert all(
            inside.enter_context(sign_in_limit.counting(name)) for _ in range(MOST_UNDER_WAY)
        )
        assert _submit(known, officer, PASSWORD).status_code == 429
        assert _signed_in(_log_in(hub, officer, PASSWORD, address="127.0.0.13"))


@pytest.mark.parametrize("change", ["password", "inactive"])
def test_it_forgets_the_browsers_of_an_account_with_a_new_password(
    hub: LiveHub, officer: str, change: str
) -> None:
    """Who knew the old password may have made any number of browsers known, each with guesses."""
    address = "127.0.0.14" if change == "password" else "127.0.0.15"
    with _browser(hub, address=address) as known, ExitStack() as inside:
        assert _signed_in(_submit(known, officer, PASSWORD))
        del known.cookies[settings.SESSION_COOKIE_NAME]
        account = get_user_model()._default_manager.get(username=officer)
        account.is_active = change != "inactive"
        account.set_password("another long password")
        account.save()

        assert all(
            inside.enter_context(sign_in_limit.counting(address)) for _ in range(MOST_UNDER_WAY)
        )
        assert _submit(known, officer, "another long password").status_code == 429
