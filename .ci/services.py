"""Whether the services that the tests need answer; one sentence for what does not."""

from __future__ import annotations

import sys

import psycopg
import redis
from kombu import Connection
from kombu.exceptions import OperationalError

SECONDS = 5


def postgresql(url: str) -> str:
    """Its version; databases for the tests can be made on it."""
    with psycopg.connect(url, connect_timeout=SECONDS) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), rolcreatedb OR rolsuper"
            " FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    if row is None or not row[1]:
        sys.exit("The role of ATP_CI_DATABASE_URL must be allowed to create databases.")
    return str(row[0])


def main(database_url: str, redis_url: str, rabbitmq_url: str) -> None:
    try:
        print(f"PostgreSQL {postgresql(database_url)}")
    except psycopg.Error as exc:
        sys.exit(f"The tests need PostgreSQL; set ATP_CI_DATABASE_URL. {_first_line(exc)}")
    try:
        with redis.Redis.from_url(redis_url, socket_connect_timeout=SECONDS) as client:
            print(f"Redis {client.info('server')['redis_version']}")
    except redis.RedisError as exc:
        sys.exit(f"The tests need Redis; set ATP_CI_REDIS_URL. {_first_line(exc)}")
    try:
        with Connection(rabbitmq_url, connect_timeout=SECONDS) as broker:
            broker.ensure_connection(max_retries=1, timeout=SECONDS)
            print("RabbitMQ")
    except (OSError, OperationalError) as exc:
        sys.exit(f"The tests need RabbitMQ; set ATP_CI_RABBITMQ_URL. {_first_line(exc)}")


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
