"""The schedule from the settings, in words and with the last run of each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from messaging.periodic.models import BackgroundTask, Outcome

LATE_AFTER = timedelta(seconds=15)  # a short task may wait for a busy worker
LATE_AT_MOST = timedelta(minutes=5)

# Workers stop a task at Celery's time limit. The embedded hub has no limit; at its start it marks
# the runs of the process before it as lost.
LOST_AFTER = (
    timedelta(hours=1)
    if settings.CELERY_TASK_ALWAYS_EAGER
    else timedelta(seconds=2 * settings.CELERY_TASK_TIME_LIMIT)
)

# For people: the title of each task, and what it does.
WORDS: Mapping[str, tuple[str, str]] = {
    "messaging.tasks.sweep": (
        "Clear up",
        "Expires envelopes, tells senders what became of theirs, closes sessions of dead nodes, "
        "ends the time in which broken sessions may come back, "
        "continues broadcasts, and deletes rows that are kept for a limited time.",
    ),
    "registry.carry_on_decisions": (
        "Carry on decisions about many",
        "Carries out what officers have decided about more rows than one page waits for.",
    ),
    "registry.carry_on_exports": (
        "Write exports",
        "Writes large exports of the trail to files, and deletes those whose day is over.",
    ),
    "messaging.tasks.credit_traffic": (
        "Credit good traffic",
        "Counts newly acknowledged mail for the scores of its senders.",
    ),
    "registry.summarise_refusals": (
        "Enter refusals",
        "Writes the counts of refusals of the past minutes into the trail.",
    ),
    "registry.watch_log": (
        "Watch the log",
        "Enters in the trail when the hub did not run, and once a day the state of its clock.",
    ),
    "registry.refresh_scores": (
        "Refresh scores",
        "Computes every active agent's score again, because freshness falls and violations fade "
        "with time.",
    ),
    "registry.verify_attestations": (
        "Verify attestations",
        "Checks every stored attestation again: signature, dates, its issuers' standing.",
    ),
    "registry.erase_expired": (
        "Erase what has expired",
        "Erases sections of entries of the trail that the retention no longer keeps.",
    ),
    "messaging.tasks.check_envelopes": (
        "Judge envelopes",
        "Judges and stores a batch of envelopes.",
    ),
    "messaging.tasks.fan_out": (
        "Fan out broadcasts",
        "Gives broadcasts to their audiences.",
    ),
    "registry.recompute_scores": (
        "Recompute scores",
        "Computes scores again after something happened to their agents.",
    ),
}


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A task of the schedule and its last run.

    `row` is `None` if it never ran. `due_at` is `None` if it never ran and beat has not begun.
    """

    name: str
    every_seconds: float
    row: BackgroundTask | None
    now: datetime
    due_at: datetime | None

    @property
    def title(self) -> str:
        """Its title for people."""
        return title_of(self.name)

    @property
    def purpose(self) -> str:
        """One sentence on what it does; "" if none is written."""
        return WORDS.get(self.name, ("", ""))[1]

    @property
    def every(self) -> str:
        """Its interval in words, such as `every 5 s`."""
        return in_words(self.every_seconds)

    @property
    def is_overdue(self) -> bool:
        """Whether it is so late that a busy worker does not explain it."""
        patience = min(max(LATE_AFTER, timedelta(seconds=self.every_seconds)), LATE_AT_MOST)
        return self.due_at is not None and self.now - self.due_at > patience

    @property
    def state(self) -> str:
        """The outcome of the last run: one of `Outcome`, or `never`."""
        if self.row is None or not self.row.last_outcome:
            return "never"
        started = self.row.last_started_at
        is_running = self.row.last_outcome == Outcome.RUNNING
        if is_running and started is not None and self.now - started > LOST_AFTER:
            return Outcome.LOST.value
        return self.row.last_outcome

    @property
    def has_failed(self) -> bool:
        """Whether the last run that ended failed, or the last run is lost."""
        if self.state == Outcome.LOST:
            return True
        return self.row is not None and self.row.failures_in_a_row > 0

    @property
    def state_in_words(self) -> str:
        """The outcome of the last run, for people."""
        return "never ran" if self.state == "never" else Outcome(self.state).label


def every_seconds() -> dict[str, float]:
    """Return the interval of each scheduled task, in seconds, by name."""
    entries = settings.CELERY_BEAT_SCHEDULE.values()
    return {entry["task"]: float(entry["schedule"]) for entry in entries}


def scheduled_tasks(
    rows: Mapping[str, BackgroundTask], *, now: datetime, beat_began: datetime | None
) -> list[Scheduled]:
    """Return the schedule at `now` by the database's clock, the most frequent task first.

    A task that never ran is due one interval after `beat_began`.
    """
    found = []
    for name, seconds in sorted(every_seconds().items(), key=lambda item: item[1]):
        row = rows.get(name)
        since = row.last_started_at if row is not None else None
        base = since or beat_began
        due_at = base + timedelta(seconds=seconds) if base else None
        found.append(Scheduled(name, seconds, row, now, due_at))
    return found


def title_of(name: str) -> str:
    """Return the title of a task for people; its name if it has none."""
    return WORDS.get(name, (name, ""))[0]


def in_words(seconds: float) -> str:
    """Return an interval in words: `every 5 s`, `every 15 min`, `every hour`."""
    for size, one, unit in ((86_400, "day", "days"), (3_600, "hour", "h"), (60, "minute", "min")):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"every {one}" if count == 1 else f"every {count} {unit}"
    return f"every {seconds:g} s"
