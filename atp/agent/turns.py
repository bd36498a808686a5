"""The queue of an agent's handlers: which of the messages that wait may begin next.

No I/O and no clock: `ticks` are the seconds of a monotonic clock. Messages begin in the order of
their arrival, except for these rules:

- A type has at most its own number of handlers at once.
- Of an ordered type, one sender's messages begin one at a time, each when the one before is done.
- A message whose handler failed or crashed before runs alone, so that a crash charges only it. To
  reach a moment without other handlers, none begins for `HOLD_SECONDS` of every `CYCLE_SECONDS`
  while such a message waits. While it waits for the answer to a request of its own, other requests
  may begin.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
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
    more, nor again. `is_alone` is whether it must run beside no other.
    """

    kind: MessageType
    sender: str
    run: Callable[[], Awaitable[None]]
    may_begin: Callable[[], bool] = lambda: True
    is_over: Callable[[], bool] = lambda: False
    is_alone: Callable[[], bool] = lambda: False


class JobQueue:
    """The jobs that wait, in order, and the counts of those that run."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Job, None] = OrderedDict()
        self._rules: dict[MessageType, HandlerRule] = {}
        self._running: Counter[MessageType] = Counter()
        self._holders: dict[Hashable, Job] = {}  # of ordered types: the job that is not over
        self._alone_waiting: set[Job] = set()
        self._alone: Job | None = None  # runs
        self._held_since: float | None = None

    def set_rule(self, kind: MessageType, rule: HandlerRule) -> None:
        """Set the rule of a type, for all that begins from now on."""
        self._rules[kind] = rule

    def submit(self, job: Job) -> None:
        """Queue a job behind all others."""
        self._waiting[job] = None
        if job.is_alone():
            self._alone_waiting.add(job)

    def clear(self) -> None:
        """Drop the jobs that wait."""
        self._waiting.clear()
        self._alone_waiting.clear()

    def next(self, *, alive: int, alone_waits: bool, ticks: float) -> Job | None:
        """Return the job that begins now, or `None`.

        `alive` is the number of handlers that have not ended. `alone_waits` is whether the one that
        runs alone waits for the answer to a request of its own: then other requests may begin,
        because the answer may depend on them.
        """
        found = self._find(alive, alone_waits, self._holds(ticks))
        if found is None:
            return None
        self._drop(found)
        self._running[found.kind] += 1
        if found.is_alone():
            self._alone, self._held_since = found, None
        if self._is_ordered(found):
            self._holders[_order_of(found)] = found
        return found

    def ended(self, job: Job) -> None:
        """Note that the handler of a job has ended. An ordered job keeps its turn until `over`."""
        self._running[job.kind] -= 1
        if self._alone is job:
            self._alone = None

    def over(self, job: Job) -> None:
        """Note that a job will not run again."""
        if self._holders.get(_order_of(job)) is job:
            del self._holders[_order_of(job)]

    def hold_end(self, ticks: float) -> float | None:
        """Return when the present hold ends, in ticks, or `None` if there is none."""
        if self._held_since is None or not self._holds(ticks):
            return None
        return ticks + HOLD_SECONDS - (ticks - self._held_since) % CYCLE_SECONDS

    def _holds(self, ticks: float) -> bool:
        """Whether nothing begins now, so that a job that runs alone finds its moment."""
        if not any(job.may_begin() and not job.is_over() for job in self._alone_waiting):
            self._held_since = None
            return False
        if self._held_since is None:
            self._held_since = ticks
        return (ticks - self._held_since) % CYCLE_SECONDS < HOLD_SECONDS

    def _find(self, alive: int, alone_waits: bool, holds: bool) -> Job | None:
        passed: set[Hashable] = set()  # ordered senders of whom an earlier job waits
        over = []
        found = None
        for job in self._waiting:
            if job.is_over():
                over.append(job)
            elif self._in_turn(job, passed) and self._fits(job, alive, alone_waits, holds):
                found = job
                break
            elif self._is_ordered(job):
                passed.add(_order_of(job))
        for job in over:
            self._drop(job)
        return found

    def _in_turn(self, job: Job, passed: set[Hashable]) -> bool:
        if not self._is_ordered(job):
            return True
        first = self._holders.get(_order_of(job))
        if first is None or first.is_over():
            return _order_of(job) not in passed
        return first is job  # it is tried again

    def _fits(self, job: Job, alive: int, alone_waits: bool, holds: bool) -> bool:
        if not job.may_begin():
            return False
        if job.is_alone():
            self._alone_waiting.add(job)  # it may have become so while it waited
            return alive == 0
        if self._alone is not None:
            return alone_waits and job.kind is MessageType.REQUEST
        most = self._rules.get(job.kind, HandlerRule()).max_running
        return not holds and (most is None or self._running[job.kind] < most)

    def _is_ordered(self, job: Job) -> bool:
        rule = self._rules.get(job.kind)
        return rule is not None and rule.ordered

    def _drop(self, job: Job) -> None:
        del self._waiting[job]
        self._alone_waiting.discard(job)


def _order_of(job: Job) -> Hashable:
    return job.kind, job.sender
