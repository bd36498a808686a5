"""Every address of the hub with values that no form of it makes: an answer, never a 500.

Run on PostgreSQL as well: SQLite takes a NUL, and looks for any number.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote, urlencode
from zlib import crc32

import httpx
import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client

from registry.admin.closed_lists import ClosedList
from registry.admin.officers.login import OfficerLoginForm
from registry.trail.models import Entry
from tests.addresses import Address, World, addresses, furnish
from tests.conftest import LiveHub
from tests.registry.admin_cast import officer_client
from tests.registry.agent_cast import fresh

pytestmark = pytest.mark.usefixtures("database")

NUL = "a\0b"
ODD = (
    NUL, "\r\nX-Evil: 1", '";filename=evil.html', "99999999999999999999", "-1", "\u202e\u200b",
    "%", "(", "\ud7ff\uffff\U0010ffff", "a" * 5_000, "_00", "",
)  # fmt: skip
LOOKUPS = (
    "pk__exact", "id__regex", "time__year", "score__exact", "status__exact", "tags__id__exact",
    "organisation__id__exact", "is_staff__exact", "kind", "q", "o", "p", "_to_field",
    "_changelist_filters", "version", "lang", "format", "cursor", "limit", "fields", "timeFrom",
    "indexFrom", "reason", "app_label",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(database: None) -> World:
    return furnish()


@pytest.fixture
def boss(database: None) -> Client:
    client = officer_client()
    client.raise_request_exception = False
    return client


def _odd_paths(address: Address) -> Iterator[str]:
    for name in address.parts:
        yield address.filled(**{name: quote(NUL, safe="")})
        yield address.filled(**{name: quote(_odd_for(address, name), safe="")})


def _odd_for(address: Address, name: str) -> str:
    """One of the odd values, always the same: all of them everywhere would take an hour."""
    return ODD[crc32(f"{address.route} {name}".encode()) % len(ODD)]


def test_it_answers_every_address_with_odd_parts(boss: Client, world: World) -> None:
    failed = {
        path: answer.status_code
        for address in addresses(world)
        if not address.route.startswith("admin/logout")
        for path in _odd_paths(address)
        if (answer := boss.get(path)).status_code >= 500
    }
    assert not failed


def test_it_answers_every_list_with_odd_queries(boss: Client, world: World) -> None:
    """Each parameter by itself at each address that reads a query: a list or the API."""
    read = [each for each in addresses(world) if _reads_query(each)]
    assert len(read) > 25
    failed = {
        (address.path, name): answer.status_code
        for address in read
        for name in _lookups(address)
        if (
            answer := boss.get(f"{address.path}?{urlencode({name: _odd_for(address, name)})}")
        ).status_code
        >= 500
    }
    assert not failed


def _reads_query(address: Address) -> bool:
    if address.route == "api/v1/health":
        return False  # it reads none, and says 503 where no node runs
    lists = address.route.startswith("admin/") and address.route.count("/") == 3
    return lists or address.route.startswith("api/") or "autocomplete" in address.route


def _lookups(address: Address) -> list[str]:
    """For a list of the admin, its own filters and what Django would make of its columns."""
    names = list(LOOKUPS)
    for model, model_admin in admin.site._registry.items():
        if address.route == f"admin/{model._meta.app_label}/{model._meta.model_name}/":
            fields = [
                each[0] if isinstance(each, tuple) else each for each in model_admin.list_filter
            ]
            names += [field for field in fields if isinstance(field, str)]
    return names if address.route.startswith("api/") else sorted({*names} - {"script"})


def test_every_list_is_closed() -> None:
    """Whatever is registered later takes the lookups of its own filters only."""
    for model_admin in admin.site._registry.values():
        assert isinstance(model_admin, ClosedList), model_admin


@pytest.mark.parametrize(
    "path",
    ["/api/v1/agents/%00/", "/api/v1/agents/?cursor=%00", "/api/schema/?version=%00"],
)
def test_rejects_nul_in_the_api_with_problem_details(boss: Client, path: str) -> None:
    answer = boss.get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["code"] == "malformed.document"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/admin/registry/agent/?status__exact=%00", "/admin/registry/agent/_00/change/",
        "/admin/registry/agent/?%00=1", "/admin/registry/entry/?time__year=99999",
        "/admin/registry/entry/?kind__regex=(", "/static/%00", "/admin/%00",
    ],
)  # fmt: skip
def test_rejects_what_a_page_cannot_read(boss: Client, path: str) -> None:
    answer = boss.get(path)
    assert answer.status_code == 400
    assert answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [("format=xx", "*/*", 404), ("", "image/png", 406), ("version=2", "*/*", 400)],
)
def test_rejects_a_schema_that_there_is_not_with_problem_details(
    boss: Client, query: str, accept: str, status: int
) -> None:
    answer = boss.get(f"/api/schema/?{query}", headers={"Accept": accept})
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"


def test_rejects_a_search_that_is_too_long(boss: Client) -> None:
    """SQLite fails at a thousand words, which would be told as a database that is away."""
    for model, model_admin in admin.site._registry.items():
        if model_admin.search_fields:
            path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
            long, short = (boss.get(path, {"q": "a " * n}).status_code for n in (1_200, 100))
            # The list of entries looks for the whole text, and finds none.
            assert long == (200 if model is Entry else 400), path
            assert short == 200, path


def test_rejects_a_cursor_with_nul(boss: Client) -> None:
    cursor = b64encode(b"p=%00").decode()
    assert boss.get("/api/v1/agents/", {"cursor": cursor}).status_code == 404


@pytest.mark.parametrize("version", ["\r\nX-Evil:1", '";filename=evil.html', "2"])
def test_rejects_a_version_of_the_schema(boss: Client, version: str) -> None:
    answer = boss.get("/api/schema/", {"version": version})
    assert answer.status_code == 400
    assert "X-Evil" not in answer.headers
    assert "evil" not in answer.headers.get("Content-Disposition", "")


def test_rejects_a_session_cookie_with_nul(boss: Client) -> None:
    """Cookies may write any byte in octal, and Django reads it."""
    boss.cookies[settings.SESSION_COOKIE_NAME] = "x"
    boss.cookies[settings.SESSION_COOKIE_NAME].set("x", "x", '"' + "\\000" * 32 + '"')
    assert boss.get("/admin/").status_code == 400


@pytest.mark.parametrize(
    ("name", "password", "status"),
    [("", "x", 200), ("x", "", 200), ("", "", 200), ("a\0", "x", 400), ("x", "a\0", 400)],
)
def test_rejects_a_login_form_that_says_too_little_or_what_nobody_types(
    database: None, name: str, password: str, status: int
) -> None:
    values = {"username": name, "password": password}
    client = Client(HTTP_HOST="localhost", raise_request_exception=False)
    answer = client.post("/admin/login/", values)
    assert answer.status_code == status
    assert "_auth_user_id" not in client.session


def test_rejects_nul_in_a_form_of_several_parts(boss: Client) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="username"\r\n\r\na\0b\r\n--b--\r\n'
    answer = boss.generic("POST", "/admin/login/", body, "multipart/form-data; boundary=b")
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "content_type", ["text/plain; charset=hex", "text/plain; charset=utf-7", "a/b; x*=foo''bar"]
)
def test_rejects_texts_that_are_not_in_utf_8(hub: LiveHub, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    answer = httpx.get(f"{hub.url}/admin/login/?next=%2B2AA-", headers=headers)
    assert answer.status_code == 400


def test_it_takes_what_is_odd_but_readable(boss: Client) -> None:
    account = get_user_model()._default_manager.create_user(fresh("zoë"), is_staff=True)
    page = boss.get("/admin/auth/user/", {"q": account.username})
    assert account.username in page.content.decode()
    assert OfficerLoginForm(data={"username": "zoë"}).is_valid() is False
