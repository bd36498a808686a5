"""`make run-production`: a whole hub in the foreground, for trying it out."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from tests.production.fleet import wait_until
from tests.sources import ROOT

START_SECONDS = 90  # seven processes, on a busy machine
PROCESSES = ("node-1", "node-2", "worker-1", "worker-2", "beat")


@dataclass(frozen=True, slots=True)
class SupervisedHub:
    process: subprocess.Popen[bytes]
    log: Path
    port: int

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.output
        try:
            urls = (f"http://127.0.0.1:{port}/readyz" for port in (self.port, self.port + 1))
            return all(httpx.get(url, timeout=2).status_code == 200 for url in urls)
        except httpx.TransportError:
            return False

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]


def two_free_ports() -> int:
    """Return the first of two neighbouring free ports, below the range of ephemeral ports."""
    for _ in range(100):
        port = 20_000 + secrets.randbelow(10_000)
        with suppress(OSError), closing(socket.create_server(("127.0.0.1", port))):
            socket.create_server(("127.0.0.1", port + 1)).close()
            return port
    raise AssertionError("100 times, no two neighbouring ports were free")


@pytest.fixture
def hub(engines: dict[str, str], tmp_path: Path) -> Iterator[SupervisedHub]:
    """A hub that `manage.py production` runs: three URLs set, and no database made yet."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("ATP_", "DJANGO_"))}
    name = f"atp_supervised_{os.getpid()}"
    server = engines["ATP_DATABASE_URL"]
    port = two_free_ports()
    log = tmp_path / "hub.log"
    env = {
        **kept,
        **engines,
        "ATP_DATABASE_URL": urlsplit(server)._replace(path=f"/{name}").geturl(),
        "ATP_DATA_DIR": str(tmp_path / "data"),
        "ATP_PORT": str(port),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "production"],
            cwd=ROOT,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield SupervisedHub(process, log, port)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="it looks into /proc")
def test_it_runs_a_whole_hub_and_ends_all_of_it(hub: SupervisedHub) -> None:
    wait_until(hub.is_ready, seconds=START_SECONDS)
    assert "Made the database" in hub.output
    assert re.search(r"^  password  \S+$", hub.output, re.MULTILINE)
    kept = [p.read_text().strip() for p in (hub.log.parent / "data").glob("*key")]
    assert len(kept) == 2, "the hub's own keys, which its processes share"
    children = hub.children()
    assert len(children) == len(PROCESSES)

    victim = children[2]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(set(hub.children()) - {victim}) == len(PROCESSES))
    assert "worker-1 | ended with -9; starting it again" in hub.output

    last = hub.children()
    hub.process.send_signal(signal.SIGINT)
    assert hub.process.wait(30) == 0
    assert hub.output.rstrip().endswith("All processes have stopped.")
    assert not [pid for pid in last if Path(f"/proc/{pid}").exists()]
    assert not [secret for secret in kept if secret in hub.output]
