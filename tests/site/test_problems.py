"""Below /api/ each failure is problem details, also where no view has answered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, InternalError, OperationalError, ProgrammingError
from django.test import Client, RequestFactory
from pytest_django.fixtures import Settings

from atp_site import env, error_pages
from registry.api import agents, errors
from registry.api.schema import ProblemSchema
from tests.conftest import LiveHub
from tests.registry.admin_cast import officer_client

PROBLEM = "application/problem+json"


def test_it_tells_of_an_address_that_does_not_exist(hub: LiveHub) -> None:
    answer = httpx.get(f"{hub.url}/api/v1/nothing/")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, PROBLEM)
    assert answer.json()["code"] == "http.not_found"
    assert "html" in httpx.get(f"{hub.url}/nothing/").headers["Content-Type"]


@pytest.mark.parametrize(
    "problem", [OperationalError, InterfaceError, InternalError, ProgrammingError]
)
def test_it_tells_that_the_database_is_away(
    problem: type[Exception], monkeypatch: pytest.MonkeyPatch, database: None
) -> None:
    """Of a view, and of what comes before any view."""

    def fail(*_: Any, **__: Any) -> Any:
        raise problem("too many clients already for user atp, password secret")

    monkeypatch.setattr(agents.AgentListView, "get_queryset", fail)
    client = officer_client()
    answers: list[Any] = [client.get("/api/v1/agents/")]
    try:
        fail()
    except problem:
        answers.append(error_pages.server_error(RequestFactory().get("/api/v1/agents/")))
    for answer in answers:
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, PROBLEM)
        assert int(answer.headers["Retry-After"]) == errors.RETRY_SECONDS
        assert b"secret" not in answer.content


def test_it_hides_why_it_failed(monkeypatch: pytest.MonkeyPatch, database: None) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError("secret")

    monkeypatch.setattr(agents.AgentListView, "get_queryset", fail)
    client = officer_client()
    client.raise_request_exception = False
    answer = client.get("/api/v1/agents/")
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, PROBLEM)
    assert b"secret" not in answer.content


def test_no_cache_keeps_what_the_api_tells(database: None) -> None:
    client = officer_client()
    for address in ("/api/v1/agents/", "/api/v1/provenance/", "/api/v1/hub", "/api/v1/nothing/"):
        assert client.get(address).headers["Cache-Control"] == "no-store", address


def test_it_describes_its_problems(hub: LiveHub) -> None:
    schema = httpx.get(f"{hub.url}/api/schema/", headers={"Accept": "application/json"}).json()
    enrol = schema["paths"]["/api/v1/enrol"]["post"]["responses"]
    assert {"202", "400", "403", "429"} <= enrol.keys()
    for path, operations in schema["paths"].items():
        if not path.startswith("/api/v1/"):
            continue
        for operation in operations.values():
            answers = operation["responses"]
            assert "404" in answers or "{" not in path, path
            assert PROBLEM in answers["400"]["content"], path
    assert ProblemSchema.__doc__


def test_it_leads_to_no_other_host_after_signing_in(database: None) -> None:
    client = officer_client()
    answer = client.get("/admin/login/?next=//evil.example", follow=True)
    assert answer.redirect_chain[-1][0] == "/admin/"
    assert answer.status_code == 200


def test_it_names_no_port_that_it_does_not_listen_on(database: None, settings: Settings) -> None:
    settings.ATP_PUBLIC_URL = "https://hub.example.com"
    settings.ALLOWED_HOSTS = ["hub.example.com", "inside"]
    asked = {"hub.example.com": "wss://hub.example.com/ws/agents/"}
    asked["hub.example.com:6666"] = asked["inside:6666"] = asked["hub.example.com"]
    asked["inside"] = "wss://inside/ws/agents/"
    asked["inside:8123"] = "wss://inside:8123/ws/agents/"
    for host, expected in asked.items():
        answer = Client().get("/api/v1/hub", secure=True, HTTP_HOST=host, SERVER_PORT="8123")
        assert answer.json()["websocket"] == expected


def test_rejects_a_data_folder_that_any_user_may_write(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("ATP_DATA_DIR", str(folder))
    with pytest.raises(ImproperlyConfigured, match="chmod o-w"):
        env.data_dir("ATP_DATA_DIR", tmp_path)
    folder.chmod(0o770)
    assert env.data_dir("ATP_DATA_DIR", tmp_path) == folder
