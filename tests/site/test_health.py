"""`/api/v1/health` of a hub that is well: who is told how much, and that no look is waited for."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connection

from messaging.health import probes
from messaging.health.probes import Probe, Service, ServiceAway
from registry.officers.actions import issue_api_token
from registry.officers.groups import AUDITORS, ensure_groups
from tests.conftest import LiveHub
from tests.messaging.conftest import until

PARTS = {"hub", "database", "worker", "beat", "layer", "broker", "tasks"}
WORDS_ONLY = {"status", "needed"}


def token_of(group: str | None) -> str:
    """An API token of a new person of that group."""
    ensure_groups()
    users = get_user_model()._default_manager
    user = users.create_user(f"otto-{secrets.token_hex(6)}", is_staff=True)
    if group is not None:
        user.groups.add(Group.objects.get(name=group))
    return issue_api_token(user, "a monitor", days=1).text


def ask(hub: LiveHub, token: str = "") -> httpx.Response:
    headers = {"Authorization": f"Token {token}"} if token else {}
    return httpx.get(f"{hub.url}/api/v1/health", headers=headers, timeout=30)


def well(hub: LiveHub, token: str = "") -> dict[str, Any]:
    """The answer once every part is well, which a busy machine may take a moment for.

    The tasks are left out: other tests make some fail.
    """
    answers: list[dict[str, Any]] = []

    def is_well() -> bool:
        answer = ask(hub, token)
        answers.append(answer.json())
        others = {p["status"] for name, p in answers[-1]["parts"].items() if name != "tasks"}
        return answer.status_code == 200 and others == {"ok"}

    until(is_well, "all parts being well")
    return answers[-1]


def test_it_tells_anybody_the_words_and_nothing_else(hub: LiveHub) -> None:
    told = well(hub)
    assert set(told) == {"status", "parts"}
    assert told["status"] in {"ok", "degraded"}
    assert set(told["parts"]) == PARTS
    assert all(set(part) == WORDS_ONLY for part in told["parts"].values())
    assert ask(hub).headers["Cache-Control"] == "no-store"


def test_it_tells_those_who_may_see_processes_what_is_seen(hub: LiveHub) -> None:
    told = well(hub, token_of(AUDITORS))
    for name in ("worker", "beat", "layer", "broker"):
        assert told["parts"][name]["says"] == "Within this process."
    assert all({"since", "says", "hint"} <= set(part) for part in told["parts"].values())
    assert told["processes"] == []


def test_it_tells_a_person_without_the_right_no_more_than_anybody(hub: LiveHub) -> None:
    told = well(hub, token_of(None))
    assert "processes" not in told
    assert all(set(part) == WORDS_ONLY for part in told["parts"].values())


def test_rejects_a_wrong_token(hub: LiveHub) -> None:
    assert ask(hub, "not-a-token").status_code == 401


def test_it_shows_the_state_to_those_who_look_after_the_hub(hub: LiveHub) -> None:
    from tests.messaging.test_task_runs import browser, page

    auditor, _ = browser(AUDITORS)
    text = page(auditor, "/admin/messaging/process/")
    for words in ("Database", "Beat (the schedule)", "Within this process.", "look again"):
        assert words in text
    assert "State of the hub" in page(auditor, "/admin/")
    nobody, _ = browser(None)
    assert nobody.get("/admin/messaging/process/").status_code == 403


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A listener that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield listener


def test_it_waits_for_no_look_and_begins_no_second_one(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PROBE_SECONDS", 0.3)
    begun = threading.Semaphore(0)

    def look() -> bytes:
        begun.release()
        with socket.create_connection(silent.getsockname(), timeout=20) as asking:
            return asking.recv(1)

    hanging = Probe(look)

    def asked(_: int) -> str:
        try:
            return repr(hanging.result())
        except TimeoutError:
            return "no answer"

    with ThreadPoolExecutor(8) as crowd:
        assert set(crowd.map(asked, range(32))) == {"no answer"}
    assert begun.acquire(blocking=False)
    assert not begun.acquire(blocking=False), "one look for all who ask"
    answering, _ = silent.accept()
    with answering:
        answering.send(b"!")
        until(lambda: asked(0) == repr(b"!"), "the answer being taken")


def test_it_tells_what_a_look_ran_into() -> None:
    def look() -> None:
        raise ConnectionRefusedError("nobody is there")

    with pytest.raises(ConnectionRefusedError, match="nobody"):
        Probe(look).result()


def test_it_tells_of_a_full_disk(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that is taken back does not reach the disk, so its room is looked at."""
    probes.write_to_database()
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL's disk is seen by what becomes of batches")
    monkeypatch.setattr(probes, "LEAST_FREE_BYTES", 1 << 62)
    with pytest.raises(ServiceAway, match="MiB are free in"):
        probes.write_to_database()


@pytest.mark.parametrize("service", list(Service))
def test_it_says_why_a_service_is_away_without_its_password(service: Service) -> None:
    url = "redis://:s3cret@127.0.0.1:1/0"
    away = ServiceAway(service, OSError(f"can't reach {url}\nDETAIL: a row of an agent"))
    assert str(away) == f"{service} can't be used: can't reach redis://***@127.0.0.1:1/0"
    unsaid = ServiceAway(service, TimeoutError())
    assert str(unsaid) == f"{service} can't be used: TimeoutError"


def test_it_keeps_the_addresses_that_were_tried() -> None:
    tried = "connection failed:\n- ::1: refused\n- 127.0.0.1: refused"
    away = ServiceAway(Service.DATABASE, OSError(tried))
    assert str(away).endswith("connection failed: - ::1: refused - 127.0.0.1: refused")
