"""Two real agents, some thousand requests, and `kill -9` of the hub on the way.

`make crash` sends ten thousand and kills more often (ATP_CRASH_REQUESTS, ATP_CRASH_KILLS).
The promise (README.md#the-promise): what got an `accepted` receipt reaches its recipient, once
after the SDK's dedup, and every stream is without a gap.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.lines import Lines
from tests.processes import HubProcess, free_port, hub_environment, start_hub
from tests.sources import ROOT

REQUESTS = int(os.environ.get("ATP_CRASH_REQUESTS", "1000"))
KILLS = int(os.environ.get("ATP_CRASH_KILLS", "2"))
LONGEST_SECONDS = 240


def test_it_loses_nothing_and_repeats_nothing_when_the_hub_is_killed(tmp_path: Path) -> None:
    folder, port = tmp_path / "data", free_port()
    handled, outcomes = tmp_path / "handled.log", tmp_path / "outcomes.log"
    hubs = [start_hub(folder, port)]
    agents: list[subprocess.Popen[str]] = []
    try:
        asking, answering = _provision(folder, port, tmp_path / "identities")
        responder = _agent("responder", answering, handled)
        agents.append(responder)
        assert Lines(responder.stdout).next("the responder being ready") == "ready"
        requester = _agent("requester", asking, answering.stem, REQUESTS, outcomes)
        agents.append(requester)
        _kill_on_the_way(hubs, requester, outcomes)
        assert requester.wait(LONGEST_SECONDS) == 0
    finally:
        for process in agents:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        if hubs[-1].is_running():
            hubs[-1].stop()

    results = Counter(line.split()[1] for line in outcomes.read_text().splitlines())
    assert results == {"answered": REQUESTS}
    reached = Counter(handled.read_text().split())
    assert [m for m, n in reached.items() if n > 1] == [], "a handler saw a message twice"
    accepted = _query(
        folder,
        "SELECT message_id FROM messaging_envelope WHERE status = 'accepted'"
        " AND message_type = 'request'",
    )
    assert {m for (m,) in accepted} == set(reached), "accepted and never handled, or never accepted"
    _assert_streams_are_gapless(folder)
    _assert_trail_is_contiguous(folder)


def _kill_on_the_way(
    hubs: list[HubProcess], requester: subprocess.Popen[str], outcomes: Path
) -> None:
    """Kill the hub after each equal part of the requests, and start it again on the same data."""
    for kill in range(1, KILLS + 1):
        _wait_for(outcomes, REQUESTS * kill // (KILLS + 1), requester)
        hubs[-1].kill()
        hubs.append(start_hub(hubs[-1].data_dir, hubs[-1].port))


def _wait_for(outcomes: Path, lines: int, requester: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not outcomes.exists() or len(outcomes.read_bytes().splitlines()) < lines:
        assert requester.poll() is None, "the requester ended early"
        assert time.monotonic() < deadline, "the requests do not get on"
        time.sleep(0.02)


def _provision(data: Path, port: int, folder: Path) -> list[Path]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.provision", "2", str(folder)],
        cwd=ROOT,
        env=hub_environment(data, port, {}),
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST_SECONDS,
    )
    return [Path(line) for line in done.stdout.split()]


def _agent(name: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.crash.{name}", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def _query(data: Path, sql: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(next(data.glob("*.sqlite3"))) as connection:
        return connection.execute(sql).fetchall()


def _assert_streams_are_gapless(data: Path) -> None:
    counts = _query(
        data,
        "SELECT recipient_id, stream, count(*), min(seq), max(seq) FROM messaging_delivery"
        " GROUP BY recipient_id, stream",
    )
    assert counts
    for recipient, stream, count, first, last in counts:
        assert (first, last) == (1, count), f"a gap in {stream} of {recipient}"


def _assert_trail_is_contiguous(data: Path) -> None:
    (row,) = _query(data, "SELECT count(*), min(position), max(position) FROM registry_entry")
    count, first, last = row
    assert (first, last) == (0, int(str(count)) - 1)
