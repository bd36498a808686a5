"""The rules about handlers: what an agent was given is handled, by one at a time, or told as lost.

The module does no I/O (docs/reliability.md#the-crash-harness). An agent's log has a line before
each handler and one after it. A handler that a kill ended has no second line.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from atp.agent.mail import MOST_ATTEMPTS
from atp.wire.words import MAIL
from messaging.mail.done_places import DonePlaces
from tests.crash.ledger import StoredDelivery
from tests.crash.log import AGAIN, DONE, FAILED, UNWANTED, AgentLog, Event, Kind

HANDLER_FAILED = "handler.failed"  # the code of what became a dead letter after its last attempt
DELIVERED_ENDS = {"waiting", "redelivered"}  # states of what was delivered and not refused
ANSWERED = {FAILED, UNWANTED}  # how a request's handler may end for good, besides DONE
UNDER_WAY_SECONDS = 6.0  # an ack may be so late: its process or the sockets are paused for seconds
CLOCK_SECONDS = 1.0  # between an agent's look at the time and its line about it

Handled = tuple[str, str, str]  # recipient, sender and message id
Place = tuple[str, int]  # recipient, and number in its mail


@dataclass(frozen=True, slots=True)
class Fault:
    """A broken promise about a handler."""

    rule: str
    agent: str
    message: str
    detail: str


@dataclass(slots=True)
class Attempt:
    """One handler: from its first line to its second, or to the end of its process."""

    run: int
    kind: str  # of its message
    number: int
    status: str = ""  # of its second line; empty if it has none

    @property
    def is_handled(self) -> bool:
        """Whether its message is handled for good. The failure of a request is answered."""
        return self.status == DONE or (self.kind == "request" and self.status in ANSWERED)


@dataclass(slots=True)
class Handlers:
    """The attempts of each message at each of its recipients, in order.

    `failures` are the most that the hub may count for a place, by what its agent told it: the
    handlers that failed, and those that had begun when a connection ended.
    """

    attempts: dict[Handled, list[Attempt]] = field(default_factory=lambda: defaultdict(list))
    failures: Counter[Place] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def read_handlers(logs: Iterable[AgentLog]) -> Handlers:
    """Read the attempts, and note where two handlers ran that may not."""
    found = Handlers()
    for log in logs:
        _Reader(log.agent, found).read(log.events)
    return found


class _Reader:
    """Reads the log of one agent."""

    def __init__(self, agent: str, found: Handlers) -> None:
        self._agent = agent
        self._found = found
        self._open: dict[Handled, Attempt] = {}
        self._places: dict[Handled, int] = {}
        self._begun: dict[int, float] = {}  # places, and when the hub was told their end if it was
        self._done = DonePlaces()  # as this process told it

    def read(self, events: Iterable[Event]) -> None:
        last_at = 0.0
        for event in events:
            match event.kind:
                case Kind.DELIVERY if event.stream == MAIL:
                    self._places[self._agent, event.peer, event.message] = event.seq
                case Kind.BEGUN:
                    self._begun[event.seq] = 0.0
                case Kind.FAILURES:
                    self._note_failures(event)
                case Kind.ACK if event.stream == MAIL:
                    self._done.add(event.seq, event.last)
                    self._note_end(event)
                case Kind.CLOSED | Kind.OPENED:  # an agent that goes away notes no `CLOSED`
                    self._break(event.at)
                case Kind.BEGAN:  # the process before ended, at some time after its last line
                    self._break(last_at)
                    self._open.clear()
                    self._done = DonePlaces()
                case Kind.TRIED:
                    self._begin(event)
                case Kind.HANDLED:
                    self._end(event)
            last_at = event.at

    def _note_failures(self, event: Event) -> None:
        place = (self._agent, event.seq)
        self._found.failures[place] = max(self._found.failures[place], event.last)
        self._note_end(event)

    def _note_end(self, event: Event) -> None:
        ended = [seq for seq in self._begun if event.seq <= seq <= max(event.last, event.seq)]
        for seq in ended:
            self._begun[seq] = self._begun[seq] or event.at

    def _break(self, at: float) -> None:
        """Note that a connection ended, before the hub had heard of the end of some handlers."""
        for seq, told_at in self._begun.items():
            if not told_at or at - told_at < UNDER_WAY_SECONDS:
                self._found.failures[self._agent, seq] += 1
        self._begun.clear()

    def _begin(self, event: Event) -> None:
        handled = (self._agent, event.peer, event.message)
        earlier = self._found.attempts[handled]
        place = self._places.get(handled, 0)
        failures = self._found.failures[self._agent, place]
        if handled in self._open:
            self._fault("at once", event, "two handlers had it at once")
        was_handled = any(one.run == event.run and one.is_handled for one in earlier)
        # A request is done when the hub has its answer: an agent that goes away earlier hands it
        # back, though its handler has ended.
        is_over = event.type != "request" or not any(self._done.gaps(place - 1, place))
        if was_handled and is_over:
            self._fault("once", event, "handled again by a process that had handled it")
        if event.seq - 1 > failures:
            self._fault("attempts", event, f"attempt {event.seq} after {failures} failures")
        alone = any(other.number > 1 for other in self._open.values())
        if self._open and (event.seq > 1 or alone):
            self._fault("alone", event, f"attempt {event.seq} beside {len(self._open)} others")
        attempt = Attempt(event.run, event.type, event.seq)
        earlier.append(attempt)
        self._open[handled] = attempt

    def _end(self, event: Event) -> None:
        attempt = self._open.pop((self._agent, event.peer, event.message), None)
        if attempt is not None:
            attempt.status = event.status

    def _fault(self, rule: str, event: Event, detail: str) -> None:
        self._found.faults.append(Fault(rule, self._agent, event.message, detail))


def unhandled(
    found: Handlers,
    deliveries: Iterable[StoredDelivery],
    sent: Mapping[tuple[str, str], Event],
    done: Mapping[tuple[str, str], Sequence[tuple[int, int, float]]],
) -> Iterator[Fault]:
    """Yield what was delivered as mail and neither handled nor refused for a reason.

    `done` has the places that an agent said are done, with the times, by agent and stream.
    """
    for delivery in deliveries:
        if delivery.stream != MAIL:
            continue
        attempts = found.attempts.get((delivery.recipient, delivery.sender, delivery.message), [])
        failures = found.failures[delivery.recipient, delivery.seq]
        if delivery.failures > failures:
            detail = f"the hub counts {delivery.failures} failures, its log has {failures}"
            yield _of(delivery, "attempts", detail)
        if delivery.state == "refused":
            yield from _wrongly_refused(delivery, attempts, failures)
        elif delivery.state in DELIVERED_ENDS and not any(a.is_handled for a in attempts):
            envelope = sent.get((delivery.sender, delivery.message))
            places = done.get((delivery.recipient, delivery.stream), ())
            if envelope is None or not _was_late(delivery, envelope, places):
                yield _of(delivery, "handled", f"no handler ended with it, of {len(attempts)}")


def _wrongly_refused(
    delivery: StoredDelivery, attempts: Sequence[Attempt], failures: int
) -> Iterator[Fault]:
    """Yield a dead letter that is none: nothing failed often enough, and no handler refused it."""
    if delivery.code == HANDLER_FAILED:
        # Its agent does not count the last failure: it refuses the place.
        last = any(one.status in (FAILED, AGAIN) for one in attempts)
        if failures + last < MOST_ATTEMPTS:
            yield _of(delivery, "handled", f"a dead letter after {failures} failures")
    elif delivery.code != UNWANTED or not any(one.status == UNWANTED for one in attempts):
        yield _of(delivery, "handled", f"refused with {delivery.code}, and not by its handler")


def _was_late(
    delivery: StoredDelivery, envelope: Event, places: Sequence[tuple[int, int, float]]
) -> bool:
    """Whether it is a request that had expired when its recipient said that it is done."""
    if envelope.type != "request":
        return False
    said = [at for first, last, at in places if first <= delivery.seq <= last]
    return bool(said) and min(said) >= envelope.expires - CLOCK_SECONDS


def _of(delivery: StoredDelivery, rule: str, detail: str) -> Fault:
    return Fault(rule, delivery.recipient, delivery.message, f"{detail} (from {delivery.sender})")
