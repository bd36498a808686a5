"""Run a hub on real engines: nodes, workers and beat as processes that a test may kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import redis

from tests.processes import HubProcess, free_port, hub_environment, manage, start_hub
from tests.sources import ROOT

CELERY = (sys.executable, "-m", "celery", "--quiet", "-A", "atp_site.celery")
STOP_SECONDS = 15


@dataclass(slots=True)
class Fleet:
    """One hub of several processes; all share a database, a Redis and a data folder."""

    folder: Path
    env: dict[str, str]
    nodes: list[HubProcess] = field(default_factory=list)
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *, nodes: int, workers: int) -> None:
        for _ in range(nodes):
            self.nodes.append(start_hub(self.folder, free_port(), self.env))
        for n in range(workers):
            self.start_worker(f"w{n}")
        self._celery("beat", "beat", "--schedule", str(self.folder / "beat-schedule"))

    def start_worker(self, name: str, *, failpoints: str = "") -> None:
        worker = ("worker", "--concurrency=1", "--without-gossip", "--without-mingle")
        self._celery(name, *worker, "-n", f"{name}@%h", ATP_FAILPOINTS=failpoints)

    def kill_worker(self, name: str) -> None:
        """Kill a worker and its child with SIGKILL."""
        process = self.workers.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)

    def stop_worker(self, name: str) -> None:
        """Stop a worker as a supervisor does: SIGTERM, and SIGKILL if it takes too long.

        If it takes too long, its log shows its stacks (SIGUSR1 makes Celery write them).
        """
        process = self.workers.pop(name)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)
            time.sleep(1.0)
            print((self.folder.parent / f"{name}.log").read_text()[-5000:], file=sys.stderr)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_SECONDS)

    def restart_node(self, number: int) -> None:
        """Start a node again on its port."""
        self.nodes[number] = start_hub(self.folder, self.nodes[number].port, self.env)

    def stop(self) -> None:
        for node in self.nodes:
            if node.is_running():
                node.process.send_signal(signal.SIGCONT)
                node.stop()
        for name in list(self.workers):
            self.kill_worker(name)

    def enrol(self, count: int, folder: Path) -> list[Path]:
        """Enrol new agents; return their identity files. `at` is the node that they connect to."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.provision", str(count), str(folder)],
            cwd=ROOT,
            env=hub_environment(self.folder, self.nodes[0].port, self.env),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return [Path(line) for line in done.stdout.split()]

    def at(self, number: int, identity: Path) -> Path:
        """Return the same identity with the URL of node `number`."""
        members = json.loads(identity.read_text())
        members["ws_url"], members["http_url"] = self.nodes[number].ws_url, self.nodes[number].url
        moved = identity.with_name(f"{identity.stem}.at{number}.json")
        moved.write_text(json.dumps(members))
        return moved

    def run_python(self, code: str) -> None:
        """Run an officer's action in its own process."""
        done = manage(["shell", "-v", "0", "-c", code], self.folder, self.env)
        assert done.returncode == 0, done.stderr

    def query(self, sql: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.env["ATP_DATABASE_URL"]) as database:
            return database.execute(sql, parameters).fetchall()

    def flush_redis(self) -> None:
        """Empty the layer, and the broker if it is a Redis."""
        for name in ("ATP_REDIS_URL", "ATP_BROKER_URL"):
            if self.env[name].startswith("redis"):
                with redis.Redis.from_url(self.env[name]) as client:
                    client.flushdb()

    def _celery(self, name: str, *arguments: str, **extra: str) -> None:
        with (self.folder.parent / f"{name}.log").open("ab") as log:
            self.workers[name] = subprocess.Popen(
                [*CELERY, *arguments],
                cwd=ROOT,
                env=hub_environment(self.folder, self.nodes[0].port, {**self.env, **extra}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def wait_until(holds: Any, *, seconds: float = 20.0) -> None:
    """Wait until `holds()` is true. Fails after a limit."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.05)
