"""A hub whose trail could be rewritten unseen does not start."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.processes import launch_hub, start_hub


def test_it_refuses_to_start_without_the_triggers_of_the_trail(tmp_path: Path) -> None:
    data = tmp_path / "data"
    start_hub(data).stop()
    with sqlite3.connect(next(data.glob("*.sqlite3"))) as connection:
        names = [
            n for (n,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'")
        ]
        assert names
        connection.execute(f"DROP TRIGGER {names[0]}")
    refused = launch_hub(data)
    assert refused.process.wait(20) == 1
    assert names[0] in refused.output
    assert "Traceback" not in refused.output
