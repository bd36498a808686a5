"""What is kept of background tasks, in the database and on the officers' pages."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from celery import current_app
from celery._state import get_current_app
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client

from messaging.models import BackgroundTask, TaskRun
from messaging.periodic import recording
from messaging.periodic.actions import RUNS_KEPT, record_start
from messaging.periodic.beat import EmbeddedScheduler
from messaging.periodic.models import Outcome
from messaging.periodic.schedule import LOST_AFTER
from messaging.process.hub_task import HubTask
from registry.officers.actor import pseudonym
from registry.officers.groups import AUDITORS, OFFICERS, ensure_groups
from registry.storage.patience import patience
from registry.trail.models import Entry
from tests.cast import Player, write
from tests.messaging.conftest import Arm, LogIn, until
from tests.registry.admin_cast import Browser

JUDGING = "messaging.tasks.check_envelopes"
LIST = "/admin/messaging/backgroundtask/"

pytestmark = pytest.mark.usefixtures("hub")

Work = Callable[[], object]


class Chore:
    """A scheduled task of a test's own, which does what the test says."""

    def __init__(self, *, every_seconds: float = 3600) -> None:
        self.name = f"tests.chore_{secrets.token_hex(4)}"
        self.work: Work = lambda: None

        def do_chore(*_: Any) -> None:
            self.work()

        self.task = current_app.task(name=self.name)(do_chore)
        self.entry = {"task": self.name, "schedule": every_seconds}

    def run(self, *arguments: Any) -> str:
        return str(self.task.apply_async(arguments).state)

    def fail(self, message: str = "the chore broke") -> None:
        def work() -> None:
            raise ValueError(message)

        self.work = work
        assert self.run() == "FAILURE"
        self.work = lambda: None

    @property
    def row(self) -> BackgroundTask:
        return BackgroundTask.objects.get(pk=self.name)

    @property
    def runs(self) -> list[TaskRun]:
        """The newest first."""
        return list(TaskRun.objects.filter(task_id=self.name).order_by("-pk"))


@pytest.fixture
def chore(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chore]:
    chore = Chore()
    monkeypatch.setitem(settings.CELERY_BEAT_SCHEDULE, chore.name, chore.entry)
    yield chore
    current_app.tasks.pop(chore.name)
    BackgroundTask.objects.filter(pk=chore.name).delete()


def browser(group: str | None) -> tuple[Client, int]:
    """A person of a group in a browser, and the account's id."""
    ensure_groups()
    users = get_user_model()._default_manager
    user = users.create_user(f"olive-{secrets.token_hex(6)}", is_staff=True)
    if group is not None:
        user.groups.add(Group.objects.get(name=group))
    client = Browser(HTTP_HOST="localhost")
    client.force_login(user)
    return client, user.pk


def page(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return unescape(response.content.decode())


def line_of(client: Client, chore: Chore) -> str:
    """The chore's line in the list."""
    (line,) = [part for part in page(client, LIST).split("<tr") if chore.name in part]
    return line


# --- What is kept ------------------------------------------------------------------------------


def test_it_keeps_how_a_scheduled_task_went(chore: Chore) -> None:
    chore.work = lambda: chore.runs[0].outcome == Outcome.RUNNING or pytest.fail("not entered")
    assert chore.run() == "SUCCESS"
    (run,), row = chore.runs, chore.row
    assert run.outcome == row.last_outcome == Outcome.SUCCEEDED
    assert run.ended_at is not None
    assert run.started_at <= run.ended_at
    assert run.seconds is not None
    assert row.last_started_at is not None
    assert (row.runs, row.failures, row.last_error) == (1, 0, "")
    assert chore.run() == "SUCCESS"
    assert chore.row.runs == 2


def test_it_counts_failures_and_failures_in_a_row(chore: Chore) -> None:
    chore.run()
    chore.fail()
    chore.fail()
    row = chore.row
    assert (row.runs, row.failures, row.failures_in_a_row) == (3, 2, 2)
    assert row.last_outcome == Outcome.FAILED
    assert row.last_error.startswith("ValueError: the chore broke")
    assert "tests/messaging/test_task_runs.py:" in row.last_error
    assert row.last_succeeded_at is not None
    assert chore.runs[0].error == row.last_error
    chore.run()
    row = chore.row
    assert (row.failures, row.failures_in_a_row, row.last_error) == (2, 0, "")


def test_it_keeps_no_secret_of_an_error(chore: Chore) -> None:
    told = (
        "no answer from postgres://ann:hunter2@db.internal/hub with password=hunter3,"
        f" signed by {settings.SECRET_KEY}\x07\nDETAIL: row (hunter4)"
    )
    chore.fail(told)
    for kept in (chore.row.last_error, chore.runs[0].error):
        assert kept.startswith("ValueError: no answer from postgres://***@db.internal/hub")
        assert "hunter" not in kept
        assert settings.SECRET_KEY not in kept
        assert kept.isprintable()


def test_it_keeps_the_last_runs_and_longer_what_failed(chore: Chore) -> None:
    chore.fail()
    for _ in range(RUNS_KEPT + 5):
        chore.run()
    outcomes = [run.outcome for run in chore.runs]
    assert outcomes == [Outcome.SUCCEEDED] * RUNS_KEPT + [Outcome.FAILED]
    assert chore.row.runs == RUNS_KEPT + 6


def test_it_counts_a_run_that_never_ended_as_a_failure(chore: Chore) -> None:
    run = record_start(chore.name, "a worker that was killed")
    long_ago = datetime.now(UTC) - LOST_AFTER - timedelta(seconds=1)
    TaskRun.objects.filter(pk=run).update(started_at=long_ago)
    chore.run()
    assert [run.outcome for run in chore.runs] == [Outcome.SUCCEEDED, Outcome.LOST]
    assert (chore.row.runs, chore.row.failures, chore.row.failures_in_a_row) == (2, 1, 0)


def test_it_goes_on_with_the_schedule_of_the_hub_before(chore: Chore) -> None:
    """What was due while the hub was away is due at once; what it left half done is counted."""
    other, _ = BackgroundTask.objects.get_or_create(pk="t", last_started_at=datetime.now(UTC))
    assert EmbeddedScheduler(app=current_app).schedule[chore.name].is_due()[0], "it never ran"
    other.delete()
    run = record_start(chore.name, "a hub that was killed")
    two_hours_ago = datetime.now(UTC) - timedelta(hours=2)
    TaskRun.objects.filter(pk=run).update(started_at=two_hours_ago)
    BackgroundTask.objects.filter(pk=chore.name).update(last_started_at=two_hours_ago)
    entry = EmbeddedScheduler(app=current_app).schedule[chore.name]
    assert entry.is_due()[0]
    assert (chore.row.last_outcome, chore.row.failures) == (Outcome.LOST, 1)
    chore.run()
    entry = EmbeddedScheduler(app=current_app).schedule[chore.name]
    assert not entry.is_due()[0]
    assert entry.last_run_at == chore.row.last_started_at
    assert chore.row.failures == 1


def test_it_leaves_a_run_alone_that_may_still_end(chore: Chore) -> None:
    record_start(chore.name, "a worker at work")
    chore.run()
    assert [run.outcome for run in chore.runs] == [Outcome.SUCCEEDED, Outcome.RUNNING]
    assert chore.row.failures == 0


def test_it_keeps_no_runs_of_what_was_asked_with_arguments(chore: Chore) -> None:
    """That is a part of the work only; when the whole is due does not depend on it."""
    assert chore.run("a part") == "SUCCESS"
    assert not BackgroundTask.objects.filter(pk=chore.name).exists()


def test_it_runs_a_task_whose_run_cannot_be_written_down(chore: Chore) -> None:
    done = []
    chore.work = lambda: done.append(1)
    with _table_missing("messaging_taskrun"):
        assert chore.run() == "SUCCESS"
    assert done == [1]
    assert chore.run() == "SUCCESS"
    assert [run.outcome for run in chore.runs] == [Outcome.SUCCEEDED]


def test_it_writes_nothing_of_a_batch_that_is_judged(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    before = _judging()
    assert log_in(alice).submit(write(alice, bob))["status"] == "accepted"
    assert _judging() == before
    assert not TaskRun.objects.filter(task_id=JUDGING).exists()


def test_it_counts_batches_that_fail(log_in: LogIn, alice: Player, bob: Player, arm: Arm) -> None:
    _, before = _judging()
    failing = iter([True])

    def fail_once(_: object) -> None:
        if next(failing, False):
            raise LookupError("this batch broke")

    alices = log_in(alice)
    arm("before_commit", fail_once)
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    runs, failures = _judging()
    assert (runs, failures) == (0, before + 1)
    row = BackgroundTask.objects.get(pk=JUDGING)
    assert row.last_error.startswith("LookupError: this batch broke")
    assert "this batch broke" in page(browser(AUDITORS)[0], LIST)


# --- What officers see -------------------------------------------------------------------------


def test_it_shows_every_task_with_what_it_is_for() -> None:
    text = page(browser(OFFICERS)[0], LIST)
    for words in (
        "Clear up",
        "every 5 s",
        "Expires envelopes",
        "Verify attestations",
        "every hour",
    ):
        assert words in text
    assert "UTC" in text


def test_it_has_words_for_every_task_of_the_schedule() -> None:
    from messaging.periodic.schedule import WORDS

    scheduled = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert scheduled <= set(WORDS)


def test_it_says_that_a_task_has_not_run_yet(chore: Chore) -> None:
    client, _ = browser(OFFICERS)
    line = line_of(client, chore)
    assert "never ran" in line
    assert "not yet" in line
    assert "It has not run yet" in page(client, f"{LIST}{_quoted(chore)}/change/")


def test_it_shows_how_a_task_went_and_when_it_is_due(chore: Chore) -> None:
    client, _ = browser(OFFICERS)
    chore.run()
    line = line_of(client, chore)
    assert "succeeded" in line
    assert "overdue" not in line
    started = chore.row.last_started_at
    assert started is not None
    assert f"{started:%Y-%m-%d %H:%M:%S}" in line
    assert f"{started + timedelta(hours=1):%H:%M:%S}" in line
    chore.fail("<b>broken</b>")
    assert "ValueError: <b>broken</b>" in line_of(client, chore)
    assert b"<b>broken</b>" not in client.get(LIST).content, "it must be escaped"
    one = page(client, f"{LIST}{_quoted(chore)}/change/")
    assert "2 runs, 1 failed" in one
    assert "ValueError: <b>broken</b>" in one


def test_it_marks_what_is_overdue(chore: Chore) -> None:
    chore.run()
    two_hours_ago = datetime.now(UTC) - timedelta(hours=2)
    BackgroundTask.objects.filter(pk=chore.name).update(last_started_at=two_hours_ago)
    assert "overdue" in line_of(browser(OFFICERS)[0], chore)


def test_it_runs_a_task_when_an_officer_asks(chore: Chore) -> None:
    client, user_id = browser(OFFICERS)
    done: list[int] = []
    chore.work = lambda: done.append(1)
    ask = f"{LIST}{_quoted(chore)}/run/"
    assert "The trail records that you asked" in page(client, ask)
    assert not done, "it asks first"
    answer = client.post(ask, follow=True)
    assert "It has run" in unescape(answer.content.decode())
    assert done == [1]
    assert chore.row.runs == 1
    entry = Entry.objects.get(kind="task.requested", subject=chore.name)
    assert entry.actor == pseudonym(user_id)


def test_rejects_auditors_and_others_who_ask_for_a_run(chore: Chore) -> None:
    ask = f"{LIST}{_quoted(chore)}/run/"
    auditor, _ = browser(AUDITORS)
    assert "Run now" not in page(auditor, LIST)
    assert auditor.get(ask).status_code == auditor.post(ask).status_code == 403
    nobody, _ = browser(None)
    assert nobody.get(LIST).status_code == 403
    assert nobody.post(ask).status_code == 403
    assert not Entry.objects.filter(kind="task.requested", subject=chore.name).exists()


def test_rejects_a_run_of_what_is_not_scheduled() -> None:
    client, _ = browser(OFFICERS)
    assert client.post(f"{LIST}{JUDGING.replace('_', '_5F')}/run/").status_code == 404


def test_it_knows_that_the_schedule_runs_in_this_process() -> None:
    """Beat of the hub that these tests share: its own work is entered as everybody's is."""
    sweep = BackgroundTask.objects.filter(pk="messaging.tasks.sweep", runs__gt=0)
    until(sweep.exists, "a run of the sweep")


def _quoted(chore: Chore) -> str:
    return chore.name.replace("_", "_5F")  # as the admin writes keys into URLs


def _judging() -> tuple[int, int]:
    """How many runs and failures are counted of judging."""
    row = BackgroundTask.objects.filter(pk=JUDGING).first()
    return (row.runs, row.failures) if row else (0, 0)


@contextmanager
def _table_missing(table: str) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table}_away RENAME TO {table}")


class Waiting(HubTask):
    """A task that says how long it waits for an answer of the database."""

    def run(self) -> float | None:
        return patience()


def test_it_waits_no_longer_to_store_a_run_than_the_task_waits() -> None:
    """A worker that waited for a minute on a dead connection would judge nothing meanwhile."""
    assert recording.try_to_store(patience) == settings.ATP_ANSWER_SECONDS
    Waiting.bind(get_current_app())
    assert Waiting()() == settings.ATP_ANSWER_SECONDS
