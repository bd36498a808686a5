"""The state of each part of the hub, as this process sees it now.

How each part is checked:
- hub: this node. Its lease shows that the database takes its writes.
- database: by a row that it takes and rolls back, and by the outcome of this node's last batches.
  While it is away, the states of workers and beat are unknown.
- worker, beat: by their signs of life (messaging/telemetry/signs.py).
- layer, broker: by a connection.
- tasks: by their last runs. If worker, beat and broker work and tasks are late, then workers are
  busy or tasks fail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import connection

from messaging.health.models import Process, ProcessKind
from messaging.health.probes import (
    PROBE_SECONDS,
    Probe,
    Service,
    ServiceAway,
    layer_hosts,
    reach_broker,
    reach_layer,
    write_to_database,
)
from messaging.health.registered import RegisteredProcesses, registered_now
from messaging.node.process_node import process_node
from messaging.periodic.schedule import Scheduled, scheduled_tasks

T = TypeVar("T")

SILENT_AFTER_SECONDS = 15.0  # three signs of life were missed
ANSWER_SECONDS = 1.0  # for one answer of Redis or of the broker
WITHIN = "Within this process."


class Status(StrEnum):
    """The status of a part, or of the hub."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"
    UNKNOWN = "unknown"  # while the database is away


@dataclass(frozen=True, slots=True)
class Part:
    """The state of one part of the hub.

    `says` is what was seen, `hint` what to do about it. `age` is the seconds since the last sign of
    life, `None` for a part without any. The hub accepts envelopes only while all `needed` parts are
    up. `since` is when this process first saw the part in this status.
    """

    name: str
    title: str
    status: Status
    says: str
    hint: str = ""
    age: float | None = None
    needed: bool = True
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class HubState:
    """The states of all parts at one time; `registered` is `None` while the database is away."""

    at: datetime
    parts: Sequence[Part]
    registered: RegisteredProcesses | None

    @property
    def serves(self) -> bool:
        """Whether no needed part is known to be down, so that envelopes are accepted."""
        return not any(part.needed and part.status == Status.DOWN for part in self.parts)

    @property
    def status(self) -> Status:
        """`DOWN` if the hub accepts no envelopes, `OK` if all parts are, else `DEGRADED`."""
        if not self.serves:
            return Status.DOWN
        well = all(part.status == Status.OK for part in self.parts)
        return Status.OK if well else Status.DEGRADED

    @property
    def troubles(self) -> list[Part]:
        """The parts that are not `OK`."""
        return [part for part in self.parts if part.status != Status.OK]


def _ask_database() -> RegisteredProcesses:
    write_to_database()
    return registered_now()


_database = Probe(_ask_database)
_layer = Probe(partial(reach_layer, seconds=ANSWER_SECONDS))
_broker = Probe(partial(reach_broker, seconds=ANSWER_SECONDS))


class StatusHistory:
    """Since when this process has seen each part in the status that it has."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Status, datetime]] = {}
        self._lock = threading.Lock()

    def note(self, part: Part, at: datetime) -> Part:
        """Note the part's status as seen `at`; return the part with its `since`."""
        with self._lock:
            status, since = self._seen.get(part.name, (None, at))
            if status != part.status:
                since = at
            self._seen[part.name] = (part.status, since)
        return replace(part, since=since)


_history = StatusHistory()


def state_of_hub() -> HubState:
    """Check all parts at the same time; return their states after `PROBE_SECONDS` at most."""
    for probe in (_database, *_services()):
        probe.begin()
    registered, database = _look_at_database()
    tasks = tasks_of(registered) if registered else []
    parts = (
        _hub(registered),
        database,
        _worker(registered),
        _beat(registered),
        _layer_part(),
        _broker_part(),
        _tasks_part(registered, tasks),
    )
    at = datetime.now(UTC)
    return HubState(at, [_history.note(part, at) for part in parts], registered)


def is_silent(process: Process, now: datetime) -> bool:
    """Return whether a process gave no sign of life for `SILENT_AFTER_SECONDS` before `now`."""
    return (now - process.seen_at).total_seconds() > SILENT_AFTER_SECONDS


def _services() -> list[Probe[Any]]:
    layer = [_layer] if layer_hosts() else []
    return [*layer, *([] if settings.CELERY_TASK_ALWAYS_EAGER else [_broker])]


def _look_at_database() -> tuple[RegisteredProcesses | None, Part]:
    part = partial(Part, "database", "Database")
    hint = "Start it, or see what its log says. Nothing is accepted until it answers."
    seen, problem = _result(_database, Service.DATABASE)
    if seen is None:
        return None, part(Status.DOWN, problem, hint)
    own = process_node.running()
    if own is not None and not own.stores():
        hint = "See the log of the workers. Nothing is accepted until it takes what they write."
        return seen, part(Status.DOWN, "It answers, but a batch could not be stored.", hint)
    name = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}.get(connection.vendor, "The database")
    return seen, part(Status.OK, f"{name} answers and can be written.")


def _hub(registered: RegisteredProcesses | None) -> Part:
    part = partial(Part, "hub", "Hub (this node)")
    if not process_node.is_ready():
        hint = "Others serve meanwhile. If it stays so, the log of this process says why."
        return part(Status.DOWN, "This node is starting or stopping.", hint)
    own = process_node.current()
    if registered is not None:
        others = len([row for row in registered.nodes if row.id != own.id])
        if len(registered.nodes) == others:
            hint = "Can the database be written? Look for a full disk, or a server in recovery."
            return part(Status.DOWN, "This node could not renew its lease.", hint)
    if not own.sees():
        hint = "It delivers nothing until it can; see the database."
        return part(Status.DEGRADED, "This node can't see what officers decide.", hint)
    if registered is None:
        return part(Status.OK, "This node is up.")
    return part(Status.OK, f"This node serves{f', and {others} more' if others else ''}.")


def _worker(registered: RegisteredProcesses | None) -> Part:
    part = partial(Part, "worker", "Workers")
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return part(Status.OK, WITHIN)
    hint = "Start one: manage.py worker. Until then senders hear flow.busy."
    return _by_signs(part, ProcessKind.WORKER, registered, hint)


def _beat(registered: RegisteredProcesses | None) -> Part:
    part = partial(Part, "beat", "Beat (the schedule)", needed=False)
    if settings.CELERY_TASK_ALWAYS_EAGER:
        own = process_node.running()
        if own is not None and own.beat_lives():
            return part(Status.OK, WITHIN)
        hint = "Restart the hub. Envelopes go on; nothing expires and no score fades meanwhile."
        return part(Status.DOWN, "The schedule of this process has ended.", hint)
    hint = (
        "Start it: manage.py beat. Envelopes go on; nothing expires and no score fades meanwhile."
    )
    return _by_signs(part, ProcessKind.BEAT, registered, hint)


def _by_signs(
    part: Callable[..., Part], kind: ProcessKind, registered: RegisteredProcesses | None, hint: str
) -> Part:
    """Return the state of all processes of a kind: up while one of them gives signs of life."""
    if registered is None:
        return part(Status.UNKNOWN, "The database would know.", "See to the database first.")
    rows = [row for row in registered.processes if row.kind == kind]
    ages = {row.name: (registered.now - row.seen_at).total_seconds() for row in rows}
    silent = [row.name for row in rows if is_silent(row, registered.now)]
    age = max(0.0, min(ages.values(), default=0.0)) if ages else None
    alive = len(rows) - len(silent)
    if not alive:
        last = (
            f"The last sign of life was {age:.0f} s ago." if age is not None else "There is none."
        )
        lost = "If it runs, it has lost the broker or the database."
        return part(Status.DOWN, last, f"{hint} {lost}", age)
    what = kind.value if alive == 1 else f"{kind.value}s"
    runs = f"{alive} {what} {'is' if alive == 1 else 'are'} at work."
    if silent:
        lost = f"Silent: {', '.join(f'{name} for {ages[name]:.0f} s' for name in silent)}."
        return part(Status.DEGRADED, f"{runs} {lost}", "Start it again, if it is to run.", age)
    return part(Status.OK, runs, age=age)


def _layer_part() -> Part:
    part = partial(Part, "layer", "Layer between the processes")
    if not layer_hosts():
        return part(Status.OK, WITHIN)
    _, problem = _result(_layer, Service.LAYER)
    if problem:
        hint = (
            "Start the Redis of ATP_REDIS_URL. What is stored is safe; without it no receipt"
            " comes back from the workers."
        )
        return part(Status.DOWN, problem, hint)
    own = process_node.running()
    if own is not None and not own.hears():
        hint = "It subscribes anew by itself. Until then no receipt comes back from the workers."
        return part(Status.DOWN, "Redis answers, but this node hears nothing from it.", hint)
    return part(Status.OK, "Redis answers.")


def _broker_part() -> Part:
    part = partial(Part, "broker", "Broker of the tasks")
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return part(Status.OK, WITHIN)
    waiting, problem = _result(_broker, Service.BROKER)
    if waiting is None:
        hint = "Start the broker of ATP_BROKER_URL. Until then senders hear flow.busy."
        return part(Status.DOWN, problem, hint)
    return part(
        Status.OK, f"It answers; {waiting} {'task waits' if waiting == 1 else 'tasks wait'}."
    )


def _tasks_part(registered: RegisteredProcesses | None, tasks: Sequence[Scheduled]) -> Part:
    part = partial(Part, "tasks", "Background tasks", needed=False)
    if registered is None:
        return part(Status.UNKNOWN, "The database would know.", "See to the database first.")
    late = [task.title for task in tasks if task.is_overdue]
    failed = [task.title for task in tasks if task.has_failed]
    says = [
        f"{what}: {', '.join(names)}."
        for what, names in (("Overdue", late), ("Failed", failed))
        if names
    ]
    if not says:
        return part(Status.OK, "None is overdue, none failed last.")
    hint = "Their page has the errors. What is overdue waits for beat, broker or a free worker."
    return part(Status.DEGRADED, " ".join(says), hint)


def tasks_of(registered: RegisteredProcesses) -> list[Scheduled]:
    """Return the schedule with the last runs.

    A task that never ran is due one interval after beat began.
    """
    if settings.CELERY_TASK_ALWAYS_EAGER:
        began = [row.started_at for row in registered.nodes]
    else:
        began = [row.started_at for row in registered.processes if row.kind == ProcessKind.BEAT]
    return scheduled_tasks(
        registered.tasks, now=registered.now, beat_began=max(began, default=None)
    )


def _result(probe: Probe[T], service: Service) -> tuple[T | None, str]:
    """Return what the probe found and ""; or `None` and a sentence about its failure."""
    try:
        return probe.result(), ""
    except TimeoutError:
        return None, f"{service} has not answered for {PROBE_SECONDS:g} s or more."
    except ServiceAway as away:
        return None, str(away)
    except Exception as problem:  # whatever it is, the part can't be used
        return None, str(ServiceAway(service, problem))
