"""Start a hub for a run, with new data: its processes, its engines, its agents."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
from psycopg import sql

from atp_site import env as site_env
from tests.services import PrivateRedis

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120  # for a first start with migrations, on a busy machine
STOP_SECONDS = 30
PROFILES = ("embedded", "production")
POSTGRES = os.environ.get("ATP_BENCH_DATABASE_URL", "postgres://127.0.0.1:5432/postgres")
KINDS = {"hub": "node", "worker": "worker", "beat": "beat"}  # command of manage.py: kind of process
MARKS = {"begin\n", "end\n"}  # lines that a load generator prints around the measured time


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of a hub; none in the embedded profile."""

    variables: dict[str, str] = field(default_factory=dict)
    redis: PrivateRedis | None = None


@dataclass(frozen=True, slots=True)
class RunningHub:
    """The processes of a hub, its environment, and the identities enrolled at it."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    identities: Path
    ports: tuple[int, ...]
    engines: Engines

    @property
    def node_pids(self) -> list[int]:
        """The process ids of the nodes."""
        return [process.pid for kind, process in self.processes() if kind == "node"]

    def processes(self) -> list[tuple[str, psutil.Process]]:
        """Return every process of the hub with its kind: node, worker, beat, postgres, redis."""
        started = psutil.Process(self.process.pid)
        members = [started, *started.children()]
        found = [
            (kind, process)
            for member in members
            if (kind := _kind(member))
            for process in (member, *member.children(recursive=True))
        ]
        found += [("postgres", process) for process in self._backends()]
        pids = self.engines.redis.pids if self.engines.redis else []
        return [*found, *(("redis", psutil.Process(pid)) for pid in pids)]

    def _backends(self) -> list[psutil.Process]:
        """Return PostgreSQL's processes for the hub's database alone."""
        url = self.environment.get("ATP_DATABASE_URL", "")
        if urlsplit(url).hostname not in {"127.0.0.1", "localhost"}:
            return []
        name = urlsplit(url).path.lstrip("/")
        with psycopg.connect(POSTGRES) as connection:
            rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", [name])
            pids = [pid for (pid,) in rows]
        return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


@contextmanager
def running_hub(profile: str, agents: int, *, nodes: int = 1) -> Iterator[RunningHub]:
    """Run a hub in a temporary folder with `agents` enrolled agents; production has two workers."""
    with tempfile.TemporaryDirectory(prefix="atp-bench-") as folder, _engines(profile) as engines:
        ports = free_ports(nodes)
        environment = {**_environment(Path(folder), ports[0]), **engines.variables}
        if engines.variables:
            environment |= _secrets(Path(folder))
        process = _start(environment, _command(profile, nodes), ports)
        identities = Path(folder) / "identities"
        try:
            run_python("benchmarks.provision", str(agents), str(identities), env=environment)
            os.sync()  # otherwise commits can wait half a second for writes of the start
            yield RunningHub(process, environment, identities, ports, engines)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_SECONDS)


def run_python(
    module: str,
    *arguments: str,
    env: dict[str, str],
    at_mark: Callable[[str], None] = lambda _: None,
) -> Any:
    """Run a module to its end; return what it prints, parsed if it is JSON.

    Call `at_mark` with "begin" or "end" when the module prints such a line.
    """
    printed = []
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line in MARKS:
                at_mark(line.strip())
            else:
                printed.append(line)
    if process.returncode:
        raise SystemExit(f"{module} has failed; what it said stands above")
    text = "".join(printed)
    return json.loads(text) if text.startswith("{") else text


def wait_until_ready(process: subprocess.Popen[bytes], ports: tuple[int, ...]) -> None:
    """Wait until every node is ready. Raises `SystemExit` after `START_SECONDS`."""
    deadline = time.monotonic() + START_SECONDS
    while not all(_is_ready(port) for port in ports):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the hub to be measured is not ready")
        time.sleep(0.1)


def free_ports(count: int) -> tuple[int, ...]:
    """Return `count` consecutive ports that were free a moment ago."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            first = int(probe.getsockname()[1])
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return tuple(range(first, first + count))


def answers(port: int) -> bool:
    """Return whether a server on this machine listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def engine_versions(profile: str) -> str:
    """Return the versions of the engines in one line."""
    if profile == "embedded":
        return f"SQLite {sqlite3.sqlite_version}"
    with psycopg.connect(POSTGRES) as connection:
        found = connection.info.server_version  # 150020: PostgreSQL's major and minor version
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("PROFILE=production starts a Redis of its own: install redis-server.")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    version = told.stdout.partition("v=")[2].partition(" ")[0]
    return f"PostgreSQL {found // 10_000}.{found % 10_000}, Redis {version}"


def _kind(process: psutil.Process) -> str:
    """Return the kind of a process by its manage.py command; "" for other processes."""
    words = process.cmdline()
    position = next((n for n, word in enumerate(words) if word.endswith("manage.py")), len(words))
    return KINDS.get("".join(words[position + 1 : position + 2]), "")


@contextmanager
def _engines(profile: str) -> Iterator[Engines]:
    """Yield the engines: in production a new database and a new Redis."""
    if profile == "embedded":
        yield Engines()
        return
    name = f"atp_bench_{uuid.uuid4().hex[:8]}"
    with PrivateRedis() as redis, psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            variables = {
                "ATP_DATABASE_URL": urlunsplit(urlsplit(POSTGRES)._replace(path=f"/{name}")),
                "ATP_REDIS_URL": redis.database(0),
                "ATP_BROKER_URL": redis.database(1),
            }
            yield Engines(variables, redis)
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            connection.execute(drop)


def _environment(folder: Path, port: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATP_")}
    return {**kept, "ATP_DATA_DIR": str(folder), "ATP_PORT": str(port), "ATP_LOG_LEVEL": "WARNING"}


def _secrets(folder: Path) -> dict[str, str]:
    """Return the secrets that a hub on shared engines needs, stored in `folder`."""
    for file, size in site_env.SECRETS.values():
        site_env.kept_secret(folder / file, size=size)
    return {f"{name}_FILE": str(folder / file) for name, (file, _) in site_env.SECRETS.items()}


def _command(profile: str, nodes: int) -> tuple[str, ...]:
    if profile == "embedded":
        return ("hub",)
    return ("production", "--nodes", str(nodes), "--workers", "2")


def _start(
    environment: dict[str, str], command: tuple[str, ...], ports: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(process, ports)
    except SystemExit:
        process.kill()
        raise
    return process


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):  # loopback
            return True
    except OSError:
        return False
