"""What the hub needs of its database session: set after connecting, and read back.

Parameters of the start would set it in one step, but connection poolers refuse or drop those. A
pooler that hands one session of the server to several connections is refused: prepared statements,
advisory locks and these settings belong to a session.
"""

from __future__ import annotations

import secrets
from typing import Any

import psycopg

# Not the defaults of the server, its database or its role. In the words that PostgreSQL says back.
SETTINGS = {
    "synchronous_commit": "on",  # a receipt promises that the envelope is stored
    "default_transaction_isolation": "read committed",  # after a lock, a batch reads what is new
    "idle_in_transaction_session_timeout": "1min",  # a stuck process must not hold the log
    # A batch reads a few hundred rows by key, from memory or a fast disk. With the default of 4,
    # PostgreSQL read tables of up to about 20,000 rows from end to end instead.
    "random_page_cost": "1.1",
}
MARK = "atp.session"  # a setting of no effect, with a value of its own in each session
SHARED = (
    "the connection pooler in front of PostgreSQL gives one session to several connections: set"
    " pool_mode = session and server_reset_query = DISCARD ALL in it"
)
NOT_KEPT = (
    "{name} is {found} after it was set to {wanted}: the connection pooler in front of PostgreSQL"
    " must leave to the hub what it sets in its session"
)

_SET = ", ".join(["set_config(%s, %s, false)"] * (len(SETTINGS) + 1))
# What others left behind is read before anything is set.
_BEGIN = f"""
WITH found AS MATERIALIZED (
    SELECT coalesce(current_setting('{MARK}', true), '') <> ''
        OR EXISTS (SELECT FROM pg_prepared_statements) AS used
)
SELECT used, {_SET} FROM found
"""  # noqa: S608  # the names are those above
_READ = f"SELECT {', '.join(['current_setting(%s, true)'] * (len(SETTINGS) + 1))}"


def begin_session(connection: psycopg.Connection[Any]) -> None:
    """Set what the hub needs on a new connection, which commits each statement by itself.

    Raises `psycopg.OperationalError` if the session is not this connection's own, or if it does
    not keep what was set.
    """
    wanted = {MARK: secrets.token_hex(8), **SETTINGS}
    given = [text for pair in wanted.items() for text in pair]
    used, *_ = _row(connection, _BEGIN, given)
    if used:
        raise psycopg.OperationalError(SHARED)
    # A transaction of its own: a pooler of transactions may give it to another session.
    kept = zip(wanted.items(), _row(connection, _READ, list(wanted)), strict=True)
    for (name, value), found in kept:
        if found != value:
            told = NOT_KEPT.format(name=name, found=found, wanted=value)
            raise psycopg.OperationalError(SHARED if name == MARK else told)


def _row(connection: psycopg.Connection[Any], sql: str, values: list[str]) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(sql.encode(), values).fetchone()
    assert row is not None
    return row
