"""Store the runs of tasks. To avoid deadlocks, always lock a task's row before its runs."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from kombu.exceptions import OperationalError

from atp.errors import FlowBusy
from messaging.layer import events
from messaging.models import Node
from messaging.periodic.models import BackgroundTask, Outcome, TaskRun
from messaging.periodic.schedule import LOST_AFTER, every_seconds
from registry.officers.actor import Actor
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind

RUNS_KEPT = 50  # successes of a task, and as many failures, so that failures stay visible
TRIMMED_AT_ONCE = 200

LOST = "It began and never ended: its process was killed, or hung until it was stopped."


def record_start(name: str, worker: str) -> int:
    """Store that a run of a scheduled task begins now; return the run's id.

    Mark older runs that can't be running any more as lost.
    """
    with transaction.atomic():
        row, _ = BackgroundTask.objects.select_for_update().get_or_create(pk=name)
        _give_up(row, Q(started_at__lt=Now() - LOST_AFTER))
        row.runs += 1
        row.last_started_at = Now()
        row.last_outcome = Outcome.RUNNING
        row.save()
        return TaskRun.objects.create(task_id=name, started_at=Now(), worker=worker[:120]).pk


def record_end(name: str, run_id: int, *, seconds: float, error: str = "") -> None:
    """Store how a run ended, a failure if `error` is not empty; delete runs beyond `RUNS_KEPT`."""
    outcome = Outcome.FAILED if error else Outcome.SUCCEEDED
    with transaction.atomic():
        _count_end(name, outcome, seconds, error)
        TaskRun.objects.filter(pk=run_id).update(
            ended_at=Now(), seconds=seconds, outcome=outcome, error=error
        )
        _trim(name)


def record_failure(name: str, error: str) -> None:
    """Count a failure of a task that runs on demand."""
    with transaction.atomic():
        BackgroundTask.objects.get_or_create(pk=name)
        BackgroundTask.objects.filter(pk=name).update(
            last_ended_at=Now(),
            last_outcome=Outcome.FAILED,
            last_error=error,
            failures=F("failures") + 1,
        )


def give_up_running() -> dict[str, datetime]:
    """Mark the runs of an earlier hub process as lost; return when each task began last.

    The embedded hub calls this at its start: no other process can still run its tasks.
    """
    start = Node.objects.order_by("-started_at").values_list("started_at", flat=True).first()
    earlier = Q() if start is None else Q(started_at__lt=start)
    with transaction.atomic():
        rows = list(BackgroundTask.objects.select_for_update().order_by("pk"))
        for row in rows:
            if row.last_outcome == Outcome.RUNNING:
                _give_up(row, earlier)
                row.save()
    return {row.name: row.last_started_at for row in rows if row.last_started_at is not None}


def run_now(name: str, *, actor: Actor) -> None:
    """Start a scheduled task now, with an entry in the trail; its schedule stays as it is.

    In the embedded hub the task has ended when this returns. Raises `FlowBusy` if the broker is
    away, and `LookupError` if no task of that name is scheduled.
    """
    if name not in every_seconds():
        raise LookupError(name)
    with transaction.atomic():
        append([EntryDraft(Kind.TASK_REQUESTED, actor=actor.name, subject=name)])
    try:
        events.dispatch_scheduled(name, expires_seconds=every_seconds()[name])
    except OperationalError as problem:
        raise FlowBusy("the broker does not take tasks at the moment") from problem


def _count_end(name: str, outcome: Outcome, seconds: float, error: str) -> None:
    counts = (
        {"failures": F("failures") + 1, "failures_in_a_row": F("failures_in_a_row") + 1}
        if error
        else {"failures_in_a_row": 0, "last_succeeded_at": Now()}
    )
    BackgroundTask.objects.filter(pk=name).update(
        last_ended_at=Now(),
        last_seconds=seconds,
        last_outcome=outcome,
        last_error=error,
        **counts,
    )


def _give_up(row: BackgroundTask, which: Q) -> None:
    """Mark the running runs in `which` as lost and count them as failures.

    The caller has locked `row` and saves it afterwards.
    """
    running = TaskRun.objects.filter(which, task=row, outcome=Outcome.RUNNING)
    lost = list(running.values_list("pk", "started_at"))
    if not lost:
        return
    TaskRun.objects.filter(pk__in=[pk for pk, _ in lost]).update(outcome=Outcome.LOST, error=LOST)
    since = row.last_succeeded_at
    row.failures += len(lost)
    row.failures_in_a_row += sum(since is None or started > since for _, started in lost)
    if row.last_outcome == Outcome.RUNNING:
        row.last_outcome, row.last_error = Outcome.LOST, LOST


def _trim(name: str) -> None:
    good = TaskRun.objects.filter(task_id=name, outcome=Outcome.SUCCEEDED)
    bad = TaskRun.objects.filter(task_id=name).exclude(outcome=Outcome.SUCCEEDED)
    for runs in (good, bad):
        _beyond(runs, RUNS_KEPT).delete()


def _beyond(runs: QuerySet[TaskRun], kept: int) -> QuerySet[TaskRun]:
    older = runs.order_by("-pk")[kept : kept + TRIMMED_AT_ONCE]
    return TaskRun.objects.filter(pk__in=older.values("pk"))
