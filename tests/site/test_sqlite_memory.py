"""The connections of a hub on SQLite keep a bounded number of pages in memory."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.sources import ROOT

CONNECTIONS = 11  # of an embedded hub: eight of its pool, the watch, beat, a request
MOST_MIB = 90  # the bound is 64, and what the connections need besides; without it they take 180

READ_ALL = """
import sqlite3, sys
from pathlib import Path
import psutil
from atp_site.engines import SQLITE_START
before = psutil.Process().memory_info().rss
connections = []
for _ in range(int(sys.argv[2])):
    connection = sqlite3.connect(sys.argv[1])
    for statement in SQLITE_START.split(";"):
        connection.execute(statement)
    connection.execute("SELECT count(*) FROM letters WHERE text LIKE '%z'").fetchone()
    connections.append(connection)
print((psutil.Process().memory_info().rss - before) >> 20)
"""


def test_connections_share_a_bound_for_what_they_keep(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE letters (id INTEGER PRIMARY KEY, text TEXT)")
        letters = (("y" * 500,) for _ in range(60_000))
        database.executemany("INSERT INTO letters (text) VALUES (?)", letters)
        database.commit()
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(path), str(CONNECTIONS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout) < MOST_MIB
