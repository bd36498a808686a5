"""The supervisor: starts the processes of a production hub and restarts those that die.

Use it to try a production hub on one machine. On servers systemd or containers do this (deploy/).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import psycopg
from django.conf import settings
from django.db import connection
from psycopg import sql

from messaging.health.probes import Service, ServiceAway
from messaging.periodic.failures import first_line
from messaging.process.boot import (
    StartRefused,
    bring_up_to_date,
    check_settings,
    listen,
    reach_layer_and_broker,
)
from messaging.process.serve import credentials
from messaging.process.waiting import Pause, wait_for

STOP_SECONDS = 15  # until a process that did not stop is killed
RESTART_SECONDS = 1.0  # the pause before a dead process is started again
LOOK_SECONDS = 0.2  # between two checks of all processes
MISSING_DATABASE = "3D000"  # SQLSTATE, PostgreSQL's appendix A

NO_ENGINES = """\
Two nodes need PostgreSQL, Redis and a broker, and {missing} not set. On this machine, for example:
  export ATP_DATABASE_URL=postgres://127.0.0.1:5432/atp
  export ATP_REDIS_URL=redis://127.0.0.1:6379/0
  export ATP_BROKER_URL=redis://127.0.0.1:6379/1
(a broker can be RabbitMQ too: amqp://guest:guest@127.0.0.1:5672//)"""


@dataclass(slots=True)
class ManagedProcess:
    """One process of the hub, kept across restarts; `process` is `None` while it does not run."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[str] | None = None
    restart_at: float = 0.0  # by the monotonic clock


def supervise(*, first_port: int, nodes: int, workers: int, say: Callable[[str], Any]) -> None:
    """Run nodes, workers and beat until SIGINT or SIGTERM; `say` prints a line.

    Node n listens on port `first_port` + n, counted from 0. Raises `StartRefused` if an engine or a
    port can't be used.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    _need_engines()
    check_settings()
    for port in range(first_port, first_port + nodes):
        listen(settings.ATP_HOST, port).close()
    reach_layer_and_broker(pause=ended.wait)
    if _create_missing_database(ended.wait):
        say(f"Made the database {settings.DATABASES['default']['NAME']}.")
    hub_id, officer = bring_up_to_date(pause=ended.wait)
    connection.close()
    if officer is not None:
        say(credentials(officer))
    processes = _processes(first_port, nodes, workers)
    say(_greeting(hub_id, first_port, nodes, workers))
    try:
        while not ended.wait(LOOK_SECONDS):
            for managed in processes:
                _keep_running(managed, say)
    finally:
        _end(processes)
    say("All processes have stopped.")


def _need_engines() -> None:
    """Refuse to start unless all three engines are set; the message shows what to type."""
    engines = {
        "ATP_DATABASE_URL": connection.vendor == "postgresql",
        "ATP_REDIS_URL": "hosts" in settings.CHANNEL_LAYERS["default"]["CONFIG"],
        "ATP_BROKER_URL": not settings.CELERY_TASK_ALWAYS_EAGER,
    }
    if missing := [name for name, given in engines.items() if not given]:
        verb = "is" if len(missing) == 1 else "are"
        raise StartRefused(NO_ENGINES.format(missing=f"{' and '.join(missing)} {verb}"))


def _create_missing_database(pause: Pause) -> bool:
    """Create the database if it is missing; return whether it was."""
    parameters = {
        name: value
        for name, value in connection.get_connection_params().items()
        if name not in {"cursor_factory", "context", "prepare_threshold", "server_side_binding"}
    }
    try:
        wait_for(partial(_connect, parameters), pause=pause)
    except ServiceAway as away:
        problem = away.__cause__
        if not (isinstance(problem, psycopg.Error) and _is_about_a_missing_database(problem)):
            raise StartRefused(str(away)) from away
    else:
        return False
    name = parameters.pop("dbname")
    try:
        with psycopg.connect(**parameters, dbname="postgres", autocommit=True) as server:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.Error as exc:
        raise StartRefused(
            f"There is no database {name!r}, and it can't be made: {first_line(exc)}"
        ) from exc
    return True


def _connect(parameters: dict[str, Any]) -> None:
    try:
        psycopg.connect(**parameters).close()
    except psycopg.OperationalError as exc:
        raise ServiceAway(Service.DATABASE, exc) from exc


def _is_about_a_missing_database(problem: psycopg.Error) -> bool:
    return problem.sqlstate == MISSING_DATABASE or "does not exist" in str(problem)


def _processes(first_port: int, nodes: int, workers: int) -> list[ManagedProcess]:
    manage = (sys.executable, sys.argv[0])
    return [
        *(
            ManagedProcess(f"node-{n + 1}", (*manage, "hub", "--port", str(first_port + n)))
            for n in range(nodes)
        ),
        *(
            ManagedProcess(
                f"worker-{n}", (*manage, "worker", "--concurrency=1", f"--name=worker-{n}")
            )
            for n in range(1, workers + 1)
        ),
        ManagedProcess("beat", (*manage, "beat")),
    ]


def _keep_running(managed: ManagedProcess, say: Callable[[str], Any]) -> None:
    """Start a process that does not run; wait `RESTART_SECONDS` if it has just died."""
    if managed.process is not None:
        if (status := managed.process.poll()) is None:
            return
        managed.process = None
        managed.restart_at = time.monotonic() + RESTART_SECONDS
        say(f"{managed.name:<9}| ended with {status}; starting it again")
    if time.monotonic() < managed.restart_at:
        return
    managed.process = subprocess.Popen(  # noqa: S603  # commands of this file
        managed.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl-C reaches this process only, which stops the others in order
    )
    assert managed.process.stdout is not None
    arguments = (managed.name, managed.process.stdout, say)
    threading.Thread(target=_relay, args=arguments, daemon=True).start()


def _relay(name: str, stream: IO[str], say: Callable[[str], Any]) -> None:
    for line in stream:
        if line.strip():
            say(f"{name:<9}| {line.rstrip()}")


def _end(processes: Sequence[ManagedProcess]) -> None:
    """Stop the nodes first, so that workers judge their last batches; then the others.

    Kill what still runs after `STOP_SECONDS`.
    """
    deadline = time.monotonic() + STOP_SECONDS
    nodes = [managed for managed in processes if "hub" in managed.command]
    _stop(nodes, deadline)
    _stop([managed for managed in processes if managed not in nodes], deadline)


def _stop(processes: Iterable[ManagedProcess], deadline: float) -> None:
    running = [m.process for m in processes if m.process is not None and m.process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # together with the child processes of a worker
            process.wait()


def _greeting(hub_id: str, first_port: int, nodes: int, workers: int) -> str:
    addresses = [f"127.0.0.1:{port}" for port in range(first_port, first_port + nodes)]
    return "\n".join(
        (
            f"{hub_id}: {nodes} nodes, {workers} workers and beat are starting.",
            *(f"  http://{address}/admin/  ws://{address}/ws/agents/" for address in addresses),
            "Ctrl-C ends all of them.",
        )
    )
