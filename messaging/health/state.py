"""The state of the hub, part by part, as this process sees it now.

What a failure of each part looks like, and why they are told apart:
- hub: this node. Its sockets are here, and its lease says that the database takes its writes.
- database: asked directly. What it would tell of workers and beat is unknown while it is away.
- worker, beat: by their signs of life (messaging.health.signs).
- layer, broker: asked directly.
- tasks: by their last runs. Where worker, beat and broker are well and these are not, workers are
  busy with something else, or fail.
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

from messaging.health.models import Process
from messaging.health.probes import (
    PROBE_SECONDS,
    Probe,
    Service,
    ServiceAway,
    layer_hosts,
    reach_broker,
    reach_layer,
)
from messaging.health.registered import Registered, registered_now
from messaging.node.process_node import process_node
from messaging.periodic.schedule import Scheduled, scheduled_tasks

T = TypeVar("T")

SILENT_AFTER_SECONDS = 15.0  # three signs of life were missed
ANSWER_SECONDS = 1.0  # for one answer of Redis or of the broker
WITHIN = "Within this process."


class Status(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"
    UNKNOWN = "unknown"  # it can't be told while the database is away


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the hub. `needed` parts have to be up for envelopes to be accepted.

    `says` is what was seen, `hint` what to do about it, `age` the seconds since its last sign of
    life where it gives any; `since` is when this process first saw it in this status.
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
    """All parts at one time; `registered` is `None` while the database is away."""

    at: datetime
    parts: Sequence[Part]
    registered: Registered | None

    @property
    def serves(self) -> bool:
        """Whether all that is needed to accept envelopes is there, as far as it can be told."""
        return not any(part.needed and part.status == Status.DOWN for part in self.parts)

    @property
    def status(self) -> Status:
        if not self.serves:
            return Status.DOWN
        well = all(part.status == Status.OK for part in self.parts)
        return Status.OK if well else Status.DEGRADED

    @property
    def troubles(self) -> list[Part]:
        return [part for part in self.parts if part.status != Status.OK]


_database = Probe(registered_now)
_layer = Probe(partial(reach_layer, seconds=ANSWER_SECONDS))
_broker = Probe(partial(reach_broker, seconds=ANSWER_SECONDS))


class StatusHistory:
    """Since when this process has seen each part in the status that it has."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Status, datetime]] = {}
        self._lock = threading.Lock()

    def note(self, part: Part, at: datetime) -> Part:
        """Note the part's status as seen `at`; give the part back with its `since`."""
        with self._lock:
            status, since = self._seen.get(part.name, (None, at))
            if status != part.status:
                since = at
            self._seen[part.name] = (part.status, since)
        return replace(part, since=since)


_history = StatusHistory()


def state_of_hub() -> HubState:
    """Probe at every part, at all of them at the same time; takes `PROBE_SECONDS` at most."""
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
    """Whether a process has missed several of its signs of life."""
    return (now - process.seen_at).total_seconds() > SILENT_AFTER_SECONDS


def _services() -> list[Probe[Any]]:
    layer = [_layer] if layer_hosts() else []
    return [*layer, *([] if settings.CELERY_TASK_ALWAYS_EAGER else [_broker])]


def _look_at_database() -> tuple[Registered | None, Part]:
    part = partial(Part, "database", "Database")
    hint = "Start it, or see what its log says. Nothing is accepted until it answers."
    seen, problem = _result(_database, Service.DATABASE)
    if seen is None:
        return None, part(Status.DOWN, problem, hint)
    name = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}.get(connection.vendor, "The database")
    return seen, part(Status.OK, f"{name} answers.")


def _hub(registered: Registered | None) -> Part:
    part = partial(Part, "hub", "Hub (this node)")
    if not process_node.is_ready():
        hint = "Others serve meanwhile. If it stays so, the log of this process says why."
        return part(Status.DOWN, "This node is starting or stopping.", hint)
    own = process_node.current()
    if registered is not None:
        others = len([row for row in registered.nodes if row.id != own.id])
        if len(registered.nodes) == others:
            hint = "Can the database be written? Probe for a full disk, or a server in recovery."
            return part(Status.DOWN, "This node could not renew its lease.", hint)
    if not own.sees():
        hint = "It delivers nothing until it can; see the database."
        return part(Status.DEGRADED, "This node can't see what officers decide.", hint)
    if registered is None:
        return part(Status.OK, "This node is up.")
    return part(Status.OK, f"This node serves{f', and {others} more' if others else ''}.")


def _worker(registered: Registered | None) -> Part:
    part = partial(Part, "worker", "Workers")
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return part(Status.OK, WITHIN)
    hint = "Start one: manage.py worker. Until then senders hear flow.busy."
    return _by_signs(part, Process.Kind.WORKER, registered, hint)


def _beat(registered: Registered | None) -> Part:
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
    return _by_signs(part, Process.Kind.BEAT, registered, hint)


def _by_signs(
    part: Callable[..., Part], kind: Process.Kind, registered: Registered | None, hint: str
) -> Part:
    """A part of several processes: up while one of them gives signs of life."""
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


def _tasks_part(registered: Registered | None, tasks: Sequence[Scheduled]) -> Part:
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


def tasks_of(registered: Registered) -> list[Scheduled]:
    """The schedule with the last runs; a new hub's tasks are due once beat has run so long."""
    if settings.CELERY_TASK_ALWAYS_EAGER:
        began = [row.started_at for row in registered.nodes]
    else:
        began = [row.started_at for row in registered.processes if row.kind == Process.Kind.BEAT]
    return scheduled_tasks(
        registered.tasks, now=registered.now, beat_began=max(began, default=None)
    )


def _result(probe: Probe[T], service: Service) -> tuple[T | None, str]:
    """The probe's answer, or `None` and a sentence that says why there is none."""
    try:
        return probe.result(), ""
    except TimeoutError:
        return None, f"{service} has not answered for {PROBE_SECONDS:g} s or more."
    except ServiceAway as away:
        return None, str(away)
    except Exception as problem:  # whatever it is, the part can't be used
        return None, str(ServiceAway(service, problem))
