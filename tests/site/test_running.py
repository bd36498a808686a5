"""`manage.py hub` on the command line: start, refusals, end."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from examples.story.officer import Officer
from tests.conftest import LiveHub
from tests.identities import enrol, player
from tests.processes import HubProcess, free_port, launch_hub, manage, start_hub
from tests.wire import SUBPROTOCOL, Wire

IMPATIENT = {"DJANGO_SETTINGS_MODULE": "tests.production.impatient"}
# A row for every run of a node, and those of the background tasks it ran.
RUNNING_TABLES = {"messaging_node", "messaging_backgroundtask", "messaging_taskrun"}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def hubs(data_dir: Path) -> Iterator[list[HubProcess]]:
    """Hubs to be killed when the test is over, whatever became of it."""
    started: list[HubProcess] = []
    yield started
    for hub in started:
        if hub.is_running():
            hub.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One hub for the tests that leave it as it is."""
    hub = start_hub(tmp_path_factory.mktemp("running") / "data")
    yield hub
    hub.kill()


def start(hubs: list[HubProcess], data_dir: Path, port: int | None = None) -> HubProcess:
    hubs.append(start_hub(data_dir, port))
    return hubs[-1]


def rows(data_dir: Path) -> dict[str, int]:
    """How many rows each table has."""
    with closing(sqlite3.connect(data_dir / "hub.sqlite3")) as database:
        tables = database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        return {
            name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608
            for (name,) in tables.fetchall()
        }


def secrets_of(data_dir: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in data_dir.iterdir() if path.name.endswith("key")}


def sign_in(hub: HubProcess, password: str) -> httpx.Response:
    with httpx.Client(base_url=hub.url, follow_redirects=True) as browser:
        page = browser.get("/admin/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        assert token is not None
        form = {
            "username": "officer",
            "password": password,
            "csrfmiddlewaretoken": token.group(1),
            "next": "/admin/",
        }
        return browser.post("/admin/login/", data=form)


def test_it_starts_from_nothing_and_changes_nothing_the_second_time(
    hubs: list[HubProcess], data_dir: Path
) -> None:
    first = start(hubs, data_dir)
    assert "officer" in first.output
    for url in (f"{first.url}/admin/", f"{first.url}/api/docs/", first.ws_url):
        assert url in first.output
    password = first.officer_password
    signed_in = sign_in(first, password)
    assert signed_in.status_code == 200
    assert "Log out" in signed_in.text
    assert "Next: sign in to the admin, register an agent" in first.output
    with Officer(first.url) as officer:
        officer.sign_in("officer", password)
        officer.register("early-bird", organisation="Default organisation", owner="Ann")
    first.stop()
    secrets, before = secrets_of(data_dir), rows(data_dir)
    second = start(hubs, data_dir, first.port)
    assert "password" not in second.output
    assert "Next: " not in second.output
    assert "Ctrl-C stops the hub." in second.output
    after = rows(data_dir)
    assert "Log out" in sign_in(second, password).text
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= RUNNING_TABLES
    assert secrets_of(data_dir) == secrets


def test_it_keeps_what_is_secret_from_others(running: HubProcess) -> None:
    kept = [path for path in running.data_dir.iterdir() if path.is_file()]
    assert {"secret-key", "key-encryption-key", "hub.sqlite3"} <= {path.name for path in kept}
    loose = [path.name for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert not loose
    for secret in secrets_of(running.data_dir).values():
        assert secret.strip() not in running.output


def receive_until_closed(agent: ClientConnection) -> None:
    while True:
        agent.recv(timeout=5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_while_sockets_are_open(
    number: signal.Signals, hubs: list[HubProcess], data_dir: Path
) -> None:
    hub = start(hubs, data_dir)
    with (
        connect(hub.ws_url, subprotocols=[SUBPROTOCOL]) as agent,
        httpx.Client() as browser,
    ):
        browser.get(f"{hub.url}/healthz")
        assert hub.stop(number) == 0
        with pytest.raises(ConnectionClosed):
            receive_until_closed(agent)
    assert "Traceback" not in hub.output
    assert hub.output.splitlines()[-2:] == ["Stopping ...", "The hub has stopped."]


def test_it_starts_again_after_it_was_killed(hubs: list[HubProcess], data_dir: Path) -> None:
    hub = start(hubs, data_dir)
    hub.kill()
    again = start(hubs, data_dir, hub.port)
    assert httpx.get(f"{again.url}/readyz").json() == {"status": "ready", "failed": []}


def test_an_agent_that_comes_back_to_a_hub_that_was_killed_takes_nothing_over(
    hubs: list[HubProcess], data_dir: Path, tmp_path: Path
) -> None:
    """The lease of the killed hub would run on for seconds; five of these would be an alarm."""
    hub = start(hubs, data_dir)
    (identity,) = enrol(hub, 1, tmp_path / "identities")
    Wire.log_in(LiveHub(hub.url), player(identity))
    hub.kill()
    again = start(hubs, data_dir, hub.port)
    with (
        Wire.log_in(LiveHub(again.url), player(identity)),
        closing(sqlite3.connect(data_dir / "hub.sqlite3")) as database,
    ):
        counted = database.execute("SELECT takeovers FROM messaging_presence").fetchall()
    assert counted == [(0,)]


def refusal(hub: HubProcess) -> str:
    """The sentence with which a hub declined to start."""
    assert hub.process.wait(30) == 1, hub.output
    lines = [line for line in hub.output.strip().splitlines() if " WARNING " not in line]
    assert len(lines) == 1, hub.output
    return lines[0]


def test_rejects_a_second_hub_on_the_same_data(running: HubProcess, hubs: list[HubProcess]) -> None:
    hubs.append(launch_hub(running.data_dir))
    sentence = refusal(hubs[-1])
    assert "already runs" in sentence
    assert str(running.process.pid) in sentence
    assert httpx.get(f"{running.url}/readyz").status_code == 200


def test_rejects_a_port_in_use(hubs: list[HubProcess], data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        hubs.append(launch_hub(data_dir, port))
        sentence = refusal(hubs[-1])
    assert f"Port {port}" in sentence
    assert "ATP_PORT" in sentence
    assert not (data_dir / "hub.sqlite3").exists() or not rows(data_dir), "nothing half done"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("ATP_DATABASE_URL", "postgres://ann:s3cret@127.0.0.1:{port}/hub"),
        ("ATP_REDIS_URL", "redis://:s3cret@127.0.0.1:{port}/0"),
    ],
)
def test_rejects_an_engine_that_does_not_answer(
    name: str, url: str, hubs: list[HubProcess], data_dir: Path
) -> None:
    hubs.append(launch_hub(data_dir, None, {**IMPATIENT, name: url.format(port=free_port())}))
    sentence = refusal(hubs[-1])
    assert "s3cret" not in sentence
    assert "database" in sentence or name in sentence


def test_rejects_data_that_is_no_database(hubs: list[HubProcess], data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "hub.sqlite3").write_bytes(b"not a database, but long enough to be one" * 100)
    hubs.append(launch_hub(data_dir))
    assert "The database can't be used" in refusal(hubs[-1])


def test_rejects_another_key_than_the_one_that_sealed_the_data(
    hubs: list[HubProcess], data_dir: Path
) -> None:
    start(hubs, data_dir).stop()
    (data_dir / "key-encryption-key").unlink()
    hubs.append(launch_hub(data_dir))
    assert "ATP_KEY_ENCRYPTION_KEY" in refusal(hubs[-1])


def test_rejects_a_socket_on_another_path(running: HubProcess) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(running.ws_url + "elsewhere"):
        pass
    assert refused.value.response.status_code == 403
    assert "Traceback" not in running.output


def test_it_explains_itself(data_dir: Path) -> None:
    done = manage(["hub", "--help"], data_dir)
    assert done.returncode == 0
    assert "ATP_PORT" in done.stdout
    assert "ATP_DATABASE_URL" in done.stdout
