"""A pgbouncer in front of a PostgreSQL, for one test.

It pools as a test says: `session` or `transaction`. If the program is missing, the test is skipped,
unless `CI` is set.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import psycopg

from tests.needs import need_program
from tests.services import PrivatePostgres, PrivateService, give_away

DEFAULTS = {
    "listen_addr": "127.0.0.1",
    "unix_socket_dir": "",
    "auth_type": "trust",
    "auth_file": "users",
    "default_pool_size": "60",
    "max_client_conn": "200",
}


class PrivatePgbouncer(PrivateService):
    """A pgbouncer that gives every client to the database `postgres` of one server.

    `settings` are those of its section `[pgbouncer]`.
    """

    def __init__(self, behind: PrivatePostgres, **settings: Any) -> None:
        self._program = need_program("pgbouncer")
        super().__init__()
        self._behind = behind
        self._settings = {**DEFAULTS, "listen_port": self.port, **settings}
        self._write()
        (self.folder / "users").write_text('"postgres" ""\n')
        give_away(self.folder)

    @property
    def url(self) -> str:
        """The URL of the database behind it."""
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def change(self, **settings: Any) -> None:
        """Let the running pgbouncer read its settings again, with these among them."""
        self._settings.update(settings)
        self._write()
        os.kill(self.pids[0], signal.SIGHUP)

    def _write(self) -> None:
        written = [
            "[databases]",
            f"postgres = host=127.0.0.1 port={self._behind.port} dbname=postgres",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in self._settings.items()),
        ]
        (self.folder / "pgbouncer.ini").write_text("\n".join(written) + "\n")

    def _command(self) -> list[str]:
        return [self._program, "pgbouncer.ini"]

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=2, autocommit=True) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True
