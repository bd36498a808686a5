"""The open exchanges of a client: each waits for a receipt, and a request also for its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from atp.agent.failures import failure
from atp.agent.outbox import TRY_AGAIN
from atp.agent.receiving import Received
from atp.agent.session import Answered
from atp.errors import (
    ATPError,
    FlowTimeout,
    FlowWindow,
    HandlerFailed,
    PolicyHeld,
    ReplayConflict,
    from_code,
)
from atp.wire.frames import Notice, Receipt
from atp.wire.timestamps import format_timestamp

__all__ = ["Exchange", "Exchanges"]

logger = logging.getLogger(__name__)

PENDING: Final = frozenset({"quarantined", "escalated"})  # docs/protocol.md#frames
REFUSED_CODES: Final = {  # the defaults, if a receipt has no code
    "denied": "policy.denied",
    "expired": "clock.expired",
    "invalid": "malformed.envelope",
}
MAY_ARRIVE: Final = (
    "it may still arrive, and without the option message_id, sending it again is a second message"
)
# Statuses of notices after which no answer comes: officers decided against a held message, or the
# recipient has refused it for good (with its own code), or it is not delivered any more.
LOST_STATUSES: Final = frozenset({"rejected", "refused", "withheld"})


@dataclass(slots=True)
class Exchange:
    """A sent message, while its caller waits.

    `deadline` is a time of the event loop's clock. `last` is the newest receipt that was not final.
    `accepted` is the receipt with which the hub accepted it, and `accepted_at` when that arrived,
    in seconds since 1970. A timeout cancels the futures, so they can't say what had arrived.
    """

    message_id: str
    deadline: float
    receipt: asyncio.Future[Receipt] = field(default_factory=lambda: _future())
    answer: asyncio.Future[Received] = field(default_factory=lambda: _future())
    last: Receipt | None = None
    submitted: bool = False
    accepted: Receipt | None = None
    accepted_at: float = 0.0

    def fail(self, problem: ATPError) -> None:
        """End the waiting with an error."""
        for future in (self.receipt, self.answer):
            if not future.done():
                future.set_exception(problem)

    def accept(self, receipt: Receipt, *, now: float) -> None:
        """Note the receipt with which the hub accepted it."""
        self.accepted, self.accepted_at = receipt, now
        if not self.receipt.done():
            self.receipt.set_result(receipt)

    def stopped(self, caught: BaseException, *, connected: bool, sent: bool) -> BaseException:
        """Return what to raise if the caller stops waiting: it says if the message may arrive.

        `caught` is a `TimeoutError`, or the cancellation of the caller. `sent` is whether the
        message went to the hub and has no receipt.
        """
        may_arrive = sent or self.accepted is not None
        if isinstance(caught, TimeoutError):
            return self.timeout(caught, connected=connected, may_arrive=may_arrive)
        if may_arrive:
            note = f"{self.message_id} was sent before the call was cancelled; it may still arrive"
            logger.info("%s", note)
            caught.add_note(note)
        return caught

    def timeout(self, caught: TimeoutError, *, connected: bool, may_arrive: bool) -> ATPError:
        """Return the error that says why the message timed out, and what to do.

        It is `caught` itself if that is an error with which the exchange has failed. `may_arrive`
        is whether the message went to the hub, so that it may still arrive.
        """
        if isinstance(caught, ATPError):
            return caught
        fate = MAY_ARRIVE if may_arrive else "it was not sent"
        if self.last is not None and self.last.status in PENDING:
            detail = self.last.detail or "a rule requires that officers check it first"
            return PolicyHeld(f"it is held ({detail}); officers may still release it")
        if self.last is not None:
            return _refusal(self.last)
        if not self.submitted:
            return FlowWindow("too many messages of this client wait for their receipts")
        if self.accepted is not None:
            return FlowTimeout(self._unanswered(self.accepted))
        if not connected:
            return FlowTimeout(
                f"no receipt from the hub: it can't be reached; the client goes on trying to"
                f" connect; {fate}"
            )
        return FlowTimeout(f"no receipt from the hub in time, on a connection that is open; {fate}")

    def _unanswered(self, accepted: Receipt) -> str:
        told = f"the hub accepted it at {format_timestamp(self.accepted_at)}, no answer yet"
        if accepted.connected is None:
            told += ": check that the recipient is connected and handles requests"
        elif accepted.connected:
            told += "; the recipient was connected then: check that it handles requests"
        else:
            told += "; the recipient was not connected then: start it"
        return f"{told}, or raise the option timeout (milliseconds)"


class Exchanges:
    """All open exchanges of a client, by message id."""

    def __init__(self) -> None:
        self._open: dict[str, Exchange] = {}

    def __len__(self) -> int:
        return len(self._open)

    def waits_for(self, message_id: str) -> bool:
        """Whether a caller waits for this message."""
        return message_id in self._open

    @contextmanager
    def opened(self, message_id: str, *, deadline: float) -> Iterator[Exchange]:
        """Open an exchange for the length of the `with` block. `deadline`: see `Exchange`.

        Raises `ReplayConflict` if a caller waits for this message already.
        """
        if message_id in self._open:
            raise ReplayConflict(f"another call of this client still waits for {message_id}")
        exchange = Exchange(message_id, deadline)
        self._open[message_id] = exchange
        try:
            yield exchange
        finally:
            del self._open[message_id]
            for future in (exchange.receipt, exchange.answer):
                future.cancel()
                if not future.cancelled():
                    future.exception()  # read it, so that asyncio does not log it as unseen

    def receipt(self, receipt: Receipt, *, ticks: float, now: float) -> None:
        """Note the hub's receipt for a message.

        `ticks` is a time of the event loop's clock, `now` in seconds since 1970.
        """
        exchange = self._open.get(receipt.message_id)
        if exchange is None:
            return
        if receipt.status in TRY_AGAIN:
            exchange.last = receipt
            if ticks + (receipt.retry_after or 0) > exchange.deadline:
                exchange.fail(_refusal(receipt))  # the next try would come after the deadline
        elif receipt.status in REFUSED_CODES:
            exchange.fail(_refusal(receipt))
        else:
            exchange.last = receipt if receipt.status in PENDING else None
            exchange.accept(receipt, now=now)

    def answered(self, event: Answered) -> None:
        """Note the answer to a request. It also replaces a receipt that was lost."""
        exchange = self._open.get(event.expected.message_id)
        if exchange is None:
            return
        if not exchange.receipt.done():
            exchange.receipt.set_result(Receipt(event.expected.message_id, "accepted"))
        if not exchange.answer.done():
            exchange.answer.set_result(event.received)

    def notice(self, notice: Notice) -> None:
        """Note a later event. What can't be answered any more fails here, with the reason."""
        exchange = self._open.get(notice.message_id)
        if exchange is None:
            return
        if notice.status in LOST_STATUSES:
            exchange.fail(_loss(notice))
        elif exchange.last is not None:
            exchange.last = None  # released

    def fail_all(self, problem: ATPError) -> None:
        """Fail all exchanges, because the link has ended or the agent is suspended."""
        for exchange in self._open.values():
            exchange.fail(problem)


def _refusal(receipt: Receipt) -> ATPError:
    code = receipt.code or REFUSED_CODES.get(receipt.status) or f"flow.{receipt.status}"
    problem = from_code(code, receipt.detail, retry_after=receipt.retry_after)
    if isinstance(problem, ReplayConflict):
        problem.status, problem.entry = receipt.first_status, receipt.first_entry
    return problem


def _loss(notice: Notice) -> ATPError:
    """Return the error of a message that is lost. Its recipient may have chosen the code."""
    if notice.status != "refused":
        return from_code(notice.code or "policy.denied", notice.detail)
    told = notice.detail or "the recipient has refused the message for good"
    return failure(notice.code or HandlerFailed.code, told)


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()
