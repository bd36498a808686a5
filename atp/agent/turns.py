"""The queue of an agent's handlers: which of the messages that wait may begin next.

No I/O and no clock: `ticks` are the seconds of a monotonic clock. Messages begin in the order of
their arrival, except for these rules:

- A type has at most its own number of handlers at once.
- Of an ordered type, one sender's messages begin one at a time, each when the one before is done.
- A message whose handler failed or crashed before runs alone, so that a crash charges only it. To
  reach a moment without other handlers, none begins for `HOLD_SECONDS` of every `CYCLE_SECONDS`
  while such a message waits. While it waits for the answer to a request of its own, other requests
  may begin. When it has ended, the next such message waits as long as this one has run, and others
  begin. So a sender whose messages fail takes at most half of the time.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from atp.types import MessageType

__all__ = ["HandlerRule", "Job", "JobQueue"]

HOLD_SECONDS: Final = 2.0
CYCLE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class HandlerRule:
    """How many handlers of a type run at once, and whether one sender's messages are in order."""

    max_running: int | None = None
    ordered: bool = False


@dataclass(slots=True, eq=False)
class Job:
    """A message that waits for its handler.

    `may_begin` is whether it can begin now at all, and `is_over` whether it will not begin any
    more, nor again. `is_alone` is whether it must run beside no other. `begin` is called when its
    turn has come, before `run` is. `pass_over` is called when jobs of other senders or types go
    before it, because of the rule of its type. `number` is its place in the queue.
    """

    kind: MessageType
    sender: str
    run: Callable[[], Awaitable[None]]
    may_begin: Callable[[], bool] = lambda: True
    is_over: Callable[[], bool] = lambda: False
    is_alone: Callable[[], bool] = lambda: False
    begin: Callable[[], None] = lambda: None
    pass_over: Callable[[], None] = lambda: None
    number: int = field(default=0, init=False)


class JobQueue:
    """The jobs that wait, in order, and the counts of those that run."""

    def __init__(self) -> None:
        self._rules: dict[MessageType, HandlerRule] = {}
        self._waiting = {kind: _Waiting() for kind in MessageType}
        self._waiting_alone = _Waiting()
        self._senders: dict[tuple[MessageType, str], deque[Job]] = {}  # of ordered types
        self._running: Counter[MessageType] = Counter()
        self._alone: Job | None = None  # runs
        self._alone_since = self._rest_until = 0.0
        self._held_since: float | None = None
        self._numbers = itertools.count(1)

    def set_rule(self, kind: MessageType, rule: HandlerRule) -> None:
        """Set the rule of a type, also for the jobs that wait."""
        if rule == self._rules.get(kind, HandlerRule()):
            return
        self._rules[kind] = rule
        waiting = set(self._waiting[kind].jobs)
        for key in [key for key in self._senders if key[0] is kind]:
            waiting.update(list(self._senders.pop(key))[1:])
        self._waiting[kind] = _Waiting()
        for job in sorted(waiting, key=lambda job: job.number):
            self.submit(job)

    def submit(self, job: Job) -> None:
        """Queue a job behind all others; an ordered one behind those of its sender."""
        job.number = next(self._numbers)
        if self._rule(job.kind).ordered:
            self._advance(job)
            jobs = self._senders.setdefault((job.kind, job.sender), deque())
            if not jobs or jobs[0] is not job:  # otherwise it is tried again
                jobs.append(job)
            if jobs[0] is not job:
                job.pass_over()
                return
        self._queue(job)

    def clear(self) -> None:
        """Drop the jobs that wait. Those that run keep their turns."""
        self._waiting = {kind: _Waiting() for kind in MessageType}
        self._waiting_alone = _Waiting()
        for jobs in self._senders.values():
            while len(jobs) > 1:
                jobs.pop()

    def next(self, *, alive: int, alone_waits: bool, ticks: float) -> Job | None:
        """Return the job that begins now, or `None`.

        `alive` is the number of handlers that have not ended. `alone_waits` is whether the one that
        runs alone waits for the answer to a request of its own: then other requests may begin,
        because the answer may depend on them.
        """
        found = self._find(alive, alone_waits, ticks)
        if found is None:
            return None
        if found.is_alone():
            self._waiting_alone.drop(found)
            self._alone, self._alone_since, self._held_since = found, ticks, None
        else:
            self._waiting[found.kind].drop(found)
        self._running[found.kind] += 1
        return found

    def ended(self, job: Job, ticks: float) -> None:
        """Note that the handler of a job has ended. An ordered job keeps its turn until `over`."""
        self._running[job.kind] -= 1
        if self._alone is job:
            self._alone = None
            self._rest_until = ticks + (ticks - self._alone_since)

    def over(self, job: Job) -> None:
        """Note that a job will not run again: the next one of its sender may begin."""
        jobs = self._senders.get((job.kind, job.sender))
        if jobs and jobs[0] is job:
            self._advance(job, past=job)

    def hold_end(self, ticks: float) -> float | None:
        """Return when the present hold or rest ends, in ticks, or `None` if there is none."""
        if ticks < self._rest_until and self._alone_may_begin():
            return self._rest_until
        if not self._holds(ticks) or self._held_since is None:
            return None
        return ticks + HOLD_SECONDS - (ticks - self._held_since) % CYCLE_SECONDS

    def _advance(self, job: Job, *, past: Job | None = None) -> None:
        """Give the turn of a job's sender on, if the job that has it is `past` or over."""
        key = (job.kind, job.sender)
        jobs = self._senders.get(key, deque())
        before = jobs[0] if jobs else None
        while jobs and (jobs[0] is past or jobs[0].is_over()):
            jobs.popleft()
        if not jobs:
            self._senders.pop(key, None)
        elif jobs[0] is not before:
            self._queue(jobs[0])

    def _queue(self, job: Job) -> None:
        waiting = self._waiting_alone if job.is_alone() else self._waiting[job.kind]
        waiting.add(job)

    def _rule(self, kind: MessageType) -> HandlerRule:
        return self._rules.get(kind, _NO_RULE)

    def _holds(self, ticks: float) -> bool:
        """Whether nothing begins now, so that a job that runs alone finds its moment."""
        if ticks < self._rest_until or not self._alone_may_begin():
            self._held_since = None
            return False
        if self._held_since is None:
            self._held_since = ticks
        return (ticks - self._held_since) % CYCLE_SECONDS < HOLD_SECONDS

    def _alone_may_begin(self) -> bool:
        return any(job.may_begin() and not job.is_over() for job in self._waiting_alone.jobs)

    def _find(self, alive: int, alone_waits: bool, ticks: float) -> Job | None:
        if self._alone is not None:
            return self._first(MessageType.REQUEST) if alone_waits else None
        holds = self._holds(ticks)
        found = (
            [] if holds else [self._first(kind) for kind in MessageType if self._waiting[kind].jobs]
        )
        if alive == 0 and ticks >= self._rest_until:
            found.append(self._first_alone())
        jobs = (job for job in found if job is not None)
        return min(jobs, key=lambda job: job.number, default=None)

    def _first(self, kind: MessageType) -> Job | None:
        """Return the first job of a type that may begin beside others."""
        waiting, most = self._waiting[kind], self._rule(kind).max_running
        if most is not None and self._running[kind] >= most:
            waiting.pass_over()
            return None
        for job in self._alive(waiting):
            if job.is_alone():  # it has become so while it waited
                waiting.drop(job)
                self._waiting_alone.add(job)
            elif job.may_begin():
                return job
        return None

    def _first_alone(self) -> Job | None:
        alive = self._alive(self._waiting_alone)
        return next((job for job in alive if job.may_begin()), None)

    def _alive(self, waiting: _Waiting) -> Iterator[Job]:
        """Yield the jobs that are not over, in order, and drop the others."""
        dropped = False
        for job in tuple(waiting.jobs):
            if job.is_over():
                waiting.drop(job)
                self.over(job)
                dropped = True
            else:
                yield job
        if dropped:  # jobs of the same senders may wait in their places
            yield from self._alive(waiting)


class _Waiting:
    """Jobs in order. `pass_over` tells each of them once that others go before it."""

    def __init__(self) -> None:
        self.jobs: OrderedDict[Job, None] = OrderedDict()
        self._fresh: set[Job] = set()

    def add(self, job: Job) -> None:
        self.jobs[job] = None
        self._fresh.add(job)

    def drop(self, job: Job) -> None:
        self.jobs.pop(job, None)
        self._fresh.discard(job)

    def pass_over(self) -> None:
        fresh, self._fresh = self._fresh, set()
        for job in fresh:
            job.pass_over()


_NO_RULE: Final = HandlerRule()
