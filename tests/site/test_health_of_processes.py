"""Each part of a hub of several processes fails by itself, and is the one that is named.

The services are this test's own. One that is paused takes connections and never answers.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from registry.token_hash import hash_token
from tests.cast import Player
from tests.conftest import LiveHub
from tests.identities import player
from tests.production.fleet import Fleet, wait_until
from tests.services import PrivatePostgres, PrivateRedis
from tests.wire import Wire

PATIENCE_SECONDS = 60.0
ANSWER_SECONDS = 20.0  # of which looks may take 3; the rest is a busy machine's


@dataclass(frozen=True, slots=True)
class Stage:
    """A hub with one node, one worker and beat, and each of its services."""

    fleet: Fleet
    postgres: PrivatePostgres
    layer: PrivateRedis
    broker: PrivateRedis
    token: str

    def health(self, token: str = "") -> tuple[int, dict[str, Any]]:
        """The answer, which comes in bounded time whatever hangs."""
        headers = {"Authorization": f"Token {token}"} if token else {}
        url = f"{self.fleet.nodes[0].url}/api/v1/health"
        answer = httpx.get(url, headers=headers, timeout=ANSWER_SECONDS)
        return answer.status_code, answer.json()

    def failing(self) -> dict[str, str]:
        """The parts that are not well; what only follows from another one is left out."""
        _, told = self.health()
        parts = {name: part["status"] for name, part in told["parts"].items()}
        return {n: s for n, s in parts.items() if s != "ok" and n != "tasks"}

    def until(self, **expected: str) -> None:
        """Until just these parts are as they are said to be, and the others are well."""
        wait_until(lambda: self.failing() == expected, seconds=PATIENCE_SECONDS)

    def ready(self) -> httpx.Response:
        return httpx.get(f"{self.fleet.nodes[0].url}/readyz", timeout=ANSWER_SECONDS)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """What these tests share: each leaves it well."""
    with _staged(tmp_path_factory.mktemp("health") / "data") as stage:
        yield stage


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Stage]:
    """A stage of a test's own, which leaves it with processes that are gone."""
    with _staged(tmp_path / "data") as stage:
        yield stage


@contextmanager
def _staged(folder: Path) -> Iterator[Stage]:
    with ExitStack() as running:
        postgres = running.enter_context(PrivatePostgres())
        layer, broker = (running.enter_context(PrivateRedis()) for _ in range(2))
        engines = {
            "ATP_DATABASE_URL": postgres.url,
            "ATP_REDIS_URL": layer.url,
            "ATP_BROKER_URL": broker.url,
        }
        fleet = Fleet(folder, engines)
        fleet.folder.mkdir()
        running.callback(fleet.stop)
        fleet.start(nodes=1, workers=1)
        yield Stage(fleet, postgres, layer, broker, _token(postgres))


def test_it_is_well_once_worker_and_beat_give_signs(stage: Stage) -> None:
    stage.until()
    status, told = stage.health(stage.token)
    assert status == 200
    kinds = {process["kind"]: process["status"] for process in told["processes"]}
    assert kinds == {"worker": "ok", "beat": "ok"}
    assert told["parts"]["worker"]["age"] < PATIENCE_SECONDS
    ran = "SELECT worker FROM messaging_taskrun WHERE outcome = 'succeeded'"
    wait_until(lambda: any("w0@" in worker for (worker,) in stage.fleet.query(ran)))


def test_it_names_the_layer(stage: Stage) -> None:
    stage.until()
    stage.layer.pause()
    try:
        stage.until(layer="down")
        status, told = stage.health(stage.token)
        assert (status, told["status"]) == (503, "down")
        assert "ATP_REDIS_URL" in told["parts"]["layer"]["hint"]
        assert stage.ready().status_code == 200, "other nodes would be no better off"
    finally:
        stage.layer.resume()
    stage.until()


def test_it_names_the_broker(stage: Stage) -> None:
    stage.until()
    stage.broker.pause()
    try:
        wait_until(lambda: stage.failing().get("broker") == "down", seconds=PATIENCE_SECONDS)
        assert set(stage.failing()) <= {"broker", "worker", "beat"}, "those go silent after a while"
        wait_until(lambda: "worker" in stage.failing(), seconds=PATIENCE_SECONDS)
        assert stage.health()[0] == 503
    finally:
        stage.broker.resume()
    stage.until()


def test_it_names_the_database(stage: Stage) -> None:
    stage.until()
    stage.postgres.pause()
    try:
        wait_until(lambda: stage.failing().get("database") == "down", seconds=PATIENCE_SECONDS)
        failing = stage.failing()
        assert {failing.pop("worker"), failing.pop("beat")} == {"unknown"}
        assert failing.pop("hub", "degraded") == "degraded", "it can't see what officers decide"
        assert failing == {"database": "down"}
        assert stage.health(stage.token)[0] == 503, "it is not waited for to know who asks"
        ready = stage.ready()
        assert (ready.status_code, ready.json()["failed"]) == (503, ["database"])
    finally:
        stage.postgres.resume()
    stage.until()


def test_it_gets_over_a_failover_by_itself(stage: Stage, tmp_path: Path) -> None:
    """A server that was demoted answers, and takes no write; sessions made then stay read-only."""
    stage.until()
    (identity,) = stage.fleet.enrol(1, tmp_path / "identities")
    _demote(stage.postgres)
    try:
        wait_until(lambda: stage.ready().status_code == 503, seconds=PATIENCE_SECONDS)
        assert stage.ready().json()["failed"] == ["database"]
        assert stage.failing()["database"] == "down"
        assert stage.health()[0] == 503
    finally:
        _promote(stage.postgres)
    stage.until()
    assert stage.ready().status_code == 200
    wait_until(lambda: _is_let_in(stage, player(identity)))


def test_it_names_a_database_that_lacks_a_right(stage: Stage) -> None:
    """It answers every question, and takes no envelope."""
    stage.until()
    with psycopg.connect(stage.postgres.url, autocommit=True) as server:
        server.execute("ALTER TABLE messaging_batch RENAME TO messaging_batch_gone")
        try:
            wait_until(lambda: stage.ready().status_code == 503, seconds=PATIENCE_SECONDS)
            wait_until(lambda: stage.failing().get("database") == "down", seconds=PATIENCE_SECONDS)
        finally:
            server.execute("ALTER TABLE messaging_batch_gone RENAME TO messaging_batch")
    stage.until()


def test_it_names_worker_and_beat(doomed: Stage) -> None:
    """A worker that hangs, and a beat that was killed: neither can say so itself."""
    doomed.until()
    doomed.fleet.workers["w0"].send_signal(signal.SIGSTOP)
    doomed.fleet.kill_worker("beat")
    try:
        doomed.until(worker="down", beat="down")
        status, told = doomed.health(doomed.token)
        assert status == 503
        assert "manage.py worker" in told["parts"]["worker"]["hint"]
        wait_until(lambda: doomed.health()[1]["parts"]["tasks"]["status"] == "degraded")
        assert doomed.ready().status_code == 200
    finally:
        doomed.fleet.workers["w0"].send_signal(signal.SIGCONT)
    doomed.until(beat="down")
    assert doomed.health()[0] == 200, "without beat envelopes are accepted all the same"


def test_it_misses_nobody_who_was_asked_to_stop(doomed: Stage) -> None:
    doomed.until()
    doomed.fleet.stop_worker("w0")
    stopped = "SELECT 1 FROM messaging_process WHERE kind = 'worker' AND stopped_at IS NOT NULL"
    assert doomed.fleet.query(stopped)
    _, told = doomed.health(doomed.token)
    assert "worker" not in {process["kind"] for process in told["processes"]}


def _is_let_in(stage: Stage, agent: Player) -> bool:
    try:
        Wire.log_in(LiveHub(stage.fleet.nodes[0].url), agent).close()
    except AssertionError:  # closed before it was welcome
        return False
    return True


def _demote(postgres: PrivatePostgres) -> None:
    """Make the server refuse writes, and break the hub's sessions as a failover does."""
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'atp'"
        )


def _promote(postgres: PrivatePostgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute("SET default_transaction_read_only = off")
        server.execute("ALTER DATABASE postgres RESET default_transaction_read_only")


def _token(postgres: PrivatePostgres) -> str:
    """An API token of the first officer."""
    token = secrets.token_urlsafe(32)
    with psycopg.connect(postgres.url) as database:
        database.execute(
            "INSERT INTO registry_apitoken (token_hash, user_id, name, created_at, expires_at)"
            " SELECT %s, id, 'a monitor', now(), now() + interval '1 day' FROM auth_user",
            [hash_token(token)],
        )
    return token
