"""What each process of a production hub says when it can't start: one sentence, no password."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from tests.processes import free_port, hub_environment, manage, start_hub
from tests.production.fleet import wait_until
from tests.services import PrivatePostgres, PrivateRedis
from tests.sources import ROOT

SHARED = {
    "ATP_DATABASE_URL": "postgres://ann:s3cret@127.0.0.1:{port}/hub",
    "ATP_REDIS_URL": "redis://:s3cret@127.0.0.1:{port}/0",
    "ATP_BROKER_URL": "redis://:s3cret@127.0.0.1:{port}/1",
}
PORT_TRIES = 5
PATIENCE_SECONDS = 40.0
IMPATIENT = {"DJANGO_SETTINGS_MODULE": "tests.production.impatient"}
EVERYWHERE = "0.0.0.0"  # noqa: S104  # this is what must be refused


def refusal(command: str, folder: Path, env: Mapping[str, str]) -> str:
    """The sentence with which a command declined to start."""
    for _ in range(PORT_TRIES):  # the free port that `manage` found may be taken by now
        done = manage(command.split(), folder, {**IMPATIENT, **env})
        if "Address already in use" not in done.stderr:
            break
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if " WARNING " not in line]
    assert len(lines) == 1, done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    return lines[0]


def closed(*names: str) -> dict[str, str]:
    """Engines on a port where nothing listens."""
    port = free_port()
    return {name: url.format(port=port) for name, url in SHARED.items() if name in names}


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("hub", "ATP_KEY_ENCRYPTION_KEY"),
        ("hub", "ATP_SECRET_KEY"),
        ("worker", "ATP_KEY_ENCRYPTION_KEY"),
        ("beat", "ATP_SECRET_KEY"),
        ("migrate", "ATP_KEY_ENCRYPTION_KEY"),
    ],
)
def test_rejects_shared_engines_without_given_secrets(
    command: str, missing: str, tmp_path: Path
) -> None:
    shared = hub_environment(tmp_path, 8000, closed(*SHARED))
    given = {name: value for name, value in shared.items() if name.startswith("ATP_")}
    sentence = refusal(command, tmp_path, {**given, f"{missing}_FILE": ""})
    assert sentence.startswith(f"{missing} is not set")
    assert "token_urlsafe" in sentence


@pytest.mark.parametrize("command", ["hub", "worker", "beat", "production"])
def test_it_waits_for_a_database_that_is_starting(command: str, tmp_path: Path) -> None:
    """A machine that boots starts all at once; what waits says for whom, and goes on by itself."""
    with PrivateRedis() as redis_server, PrivatePostgres() as postgres:
        env = {
            "ATP_DATABASE_URL": postgres.url,
            "ATP_REDIS_URL": redis_server.database(0),
            "ATP_BROKER_URL": redis_server.database(1),
        }
        assert manage(["migrate"], tmp_path / "data", env).returncode == 0
        postgres.stop()
        with launched(command, tmp_path, env) as output:
            wait_until(lambda: "trying again for" in output.read_text(), seconds=PATIENCE_SECONDS)
            postgres.start()
            with psycopg.connect(postgres.url, autocommit=True) as server:
                seen = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'atp'"
                wait_until(
                    lambda: server.execute(seen).fetchone() != (0,), seconds=2 * PATIENCE_SECONDS
                )
            assert "can't be used: " in output.read_text()


@contextmanager
def launched(command: str, folder: Path, env: Mapping[str, str]) -> Iterator[Path]:
    """A process of the hub, with the file that it writes to; it has to run to the end."""
    output = folder / f"{command}.log"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "manage.py", command],
            cwd=ROOT,
            env=hub_environment(folder / "data", free_port(), env),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield output
        assert process.poll() is None, output.read_text()
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_it_says_a_wrong_database_at_once(tmp_path: Path) -> None:
    """What no start of a server mends is not waited for."""
    with PrivatePostgres() as postgres:
        url = postgres.url.removesuffix("/postgres") + "/missing"
        env = {**closed("ATP_REDIS_URL", "ATP_BROKER_URL"), "ATP_DATABASE_URL": url}
        done = manage(["hub"], tmp_path, env)
    assert done.returncode == 1
    assert "does not exist" in done.stderr
    assert "trying again" not in done.stderr


@pytest.mark.parametrize("command", ["hub", "worker", "beat"])
def test_rejects_a_database_that_does_not_answer(command: str, tmp_path: Path) -> None:
    assert "database can't be used" in refusal(command, tmp_path, closed(*SHARED))


def test_rejects_to_make_a_database_for_a_hub_that_can_not_run(tmp_path: Path) -> None:
    assert "Redis at ATP_REDIS_URL" in refusal("production", tmp_path, closed(*SHARED))


def test_rejects_a_layer_that_does_not_answer(tmp_path: Path) -> None:
    env = {"ATP_DATABASE_URL": f"sqlite:///{tmp_path}/hub.sqlite3", **closed("ATP_REDIS_URL")}
    assert "ATP_REDIS_URL" in refusal("hub", tmp_path, env)


@pytest.mark.parametrize("url", [SHARED["ATP_BROKER_URL"], "amqp://ann:s3cret@127.0.0.1:{port}//"])
def test_rejects_a_broker_that_does_not_answer(url: str, tmp_path: Path) -> None:
    layer = os.environ.get("ATP_PRODUCTION_REDIS_URL", "redis://127.0.0.1:6379/9")
    env = {"ATP_REDIS_URL": layer, "ATP_BROKER_URL": url.format(port=free_port())}
    sentence = refusal("hub", tmp_path, env)
    assert "broker at ATP_BROKER_URL can't be used" in sentence or "ATP_REDIS_URL" in sentence


@pytest.mark.parametrize(
    ("silent_one", "sentence"),
    [
        ("ATP_REDIS_URL", "Redis at ATP_REDIS_URL can't be used: "),
        ("ATP_BROKER_URL", "The broker at ATP_BROKER_URL can't be used: "),
    ],
)
def test_rejects_a_redis_that_takes_connections_and_never_answers(
    silent_one: str, sentence: str, tmp_path: Path
) -> None:
    with PrivateRedis() as well, socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        engines = {"ATP_REDIS_URL": well.database(0), "ATP_BROKER_URL": well.database(1)}
        engines[silent_one] = SHARED[silent_one].format(port=silent.getsockname()[1])
        assert refusal("hub", tmp_path, engines).startswith(sentence)


def test_it_starts_on_a_layer_without_room_for_keys(tmp_path: Path) -> None:
    with PrivateRedis() as full:
        with redis.Redis.from_url(full.url) as client:
            client.config_set("maxmemory", 1)
            with pytest.raises(redis.OutOfMemoryError):
                client.set("any", "")
        hub = start_hub(tmp_path / "data", env={"ATP_REDIS_URL": full.url})
        told = httpx.get(f"{hub.url}/api/v1/health", timeout=20).json()
        hub.kill()
    assert told["parts"]["layer"]["status"] == "ok"


def test_rejects_a_broker_without_a_layer(tmp_path: Path) -> None:
    sentence = refusal("hub", tmp_path, closed("ATP_BROKER_URL"))
    assert "ATP_BROKER_URL is set, but ATP_REDIS_URL is not." in sentence


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_rejects_celery_without_a_broker(command: str, tmp_path: Path) -> None:
    assert "Set ATP_BROKER_URL" in refusal(command, tmp_path, {})


def test_it_says_what_to_type_when_no_engine_is_named(tmp_path: Path) -> None:
    done = manage(["production"], tmp_path)
    assert done.returncode == 1
    for name in SHARED:
        assert f"export {name}=" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"ATP_HOST": EVERYWHERE}, "ATP_PUBLIC_URL"),
        ({"ATP_HOST": "::", "ATP_PUBLIC_URL": "http://hub.example.com"}, "ATP_PUBLIC_URL"),
        (
            {"ATP_HOST": EVERYWHERE, "ATP_PUBLIC_URL": "https://hub.example.com"},
            "ATP_TRUSTED_PROXIES",
        ),
    ],
)
def test_rejects_to_listen_for_the_network_without_a_trusted_proxy(
    env: dict[str, str], reason: str, tmp_path: Path
) -> None:
    assert reason in refusal("hub", tmp_path, env)
    assert not list(tmp_path.glob("*.sqlite3")), "nothing half done"


def test_rejects_a_host_that_is_no_address(tmp_path: Path) -> None:
    done = manage(["hub", "--host", "hub.example.com"], tmp_path)
    assert done.returncode == 2
    assert "is no address" in done.stderr
