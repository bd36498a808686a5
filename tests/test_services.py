"""The private services of the tests: what outlives a kill, and that nothing of them is left."""

from __future__ import annotations

import psutil
import psycopg
import redis

from tests.services import PrivatePostgres, PrivateRedis


def test_it_keeps_what_a_killed_postgresql_had_committed() -> None:
    with PrivatePostgres() as postgres:
        with psycopg.connect(postgres.url) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            connection.execute("INSERT INTO kept VALUES (1)")
        family = postgres.pids
        postgres.kill()
        assert not any(map(_lives, family))
        postgres.start()
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]
        folder = postgres.folder
    assert not postgres.is_running
    assert not folder.exists()


def _lives(pid: int) -> bool:
    """Whether a process has not ended; one that its parent has not waited for yet has."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_loses_what_a_killed_or_emptied_redis_held() -> None:
    with PrivateRedis() as service, redis.Redis.from_url(service.database(3)) as client:
        client.set("word", "lost")
        service.kill()
        service.start()
        assert client.get("word") is None
        client.set("word", "lost")
        service.flush()
        assert client.get("word") is None
        service.stop()
        assert not service.is_running
