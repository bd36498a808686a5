"""An agent's side of the conversation with a hub, without I/O, clock or randomness.

`receive` takes the hub's bytes and returns events; `data_to_send` returns the bytes for the hub. A
session outlives its connections, which `opened` and `lost` announce. Envelopes without a receipt
are sent again, and repeated deliveries are not handled again (docs/protocol.md#frames).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from atp.agent.inbox import Inbox
from atp.agent.mail import Mail
from atp.agent.mail_room import MAIL_BYTES
from atp.agent.outbox import Outbox
from atp.agent.placed_notices import PlacedNotices
from atp.agent.receiving import Received, Verifier
from atp.errors import ATPError, MalformedFrame, SessionTransport
from atp.wire.frames import (
    Cancelled,
    CancelRequest,
    Delivery,
    Failure,
    Gone,
    Notice,
    Receipt,
    Unknown,
    Welcome,
    Withheld,
    parse_message,
    serialize_messages,
)
from atp.wire.words import CANCEL, DONE, MAIL

__all__ = ["AgentSession", "Answered", "Arrived", "Event", "Expected"]

logger = logging.getLogger(__name__)

# Acks of what is done wait so long for others: those of one request after the other go together.
DONE_WAITS_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Expected:
    """A request that waits for its answer, with everything that the answer must match."""

    request_id: str
    message_id: str
    target: str
    digest: str
    signed: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a request of this agent."""

    expected: Expected
    received: Received


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message for a handler.

    A response has no `mail`: it arrived after its caller had stopped waiting, and is done already.
    """

    received: Received
    mail: Mail | None


Event = Answered | Arrived | Receipt | Notice | Cancelled | Failure | Gone | Withheld


class AgentSession:
    """Outbox, inbox and open requests of one agent. `mail_bytes` limits the mail that it takes."""

    def __init__(self, verifier: Verifier, *, mail_bytes: int = MAIL_BYTES) -> None:
        self._verifier = verifier
        self._outbox = Outbox()
        self.inbox = Inbox(bytes_limit=mail_bytes)
        self.notices = PlacedNotices(self.inbox)
        self._done_due: float | None = None  # in ticks
        self._expected: dict[str, Expected] = {}
        self._features: Collection[str] = ()
        self._cancels: list[str] = []  # requests to cancel with the next message
        self._unwanted: set[str] = set()  # requests to cancel when the hub has accepted them

    @property
    def unreceipted(self) -> int:
        """The number of envelopes without a final receipt."""
        return len(self._outbox)

    @property
    def open_requests(self) -> int:
        """The number of requests that wait for their answers."""
        return len(self._expected)

    @property
    def settled(self) -> bool:
        """Whether no envelope waits for a receipt and no delivery for its ack."""
        return not self._outbox and not self.inbox.has_acks

    # Sending

    def submit(self, message_id: str, data: bytes) -> None:
        """Send an envelope, again and again until its receipt arrives."""
        self._outbox.submit(message_id, data)

    def forget(self, message_id: str) -> None:
        """Stop sending an envelope."""
        self._outbox.forget(message_id)

    def may_arrive(self, message_id: str) -> bool:
        """Whether an envelope without a final receipt went to the hub, so that it may arrive."""
        return self._outbox.was_sent(message_id)

    def expect(self, expected: Expected) -> None:
        """Wait for the answer to a request."""
        self._expected[expected.request_id] = expected

    def give_up(self, expected: Expected) -> None:
        """Stop waiting for an answer, and stop sending its request."""
        self._expected.pop(expected.request_id, None)
        self._outbox.forget(expected.message_id)

    def cancel(self, expected: Expected) -> None:
        """Give up a request, and tell the hub so if it knows the request and cancelled requests.

        The hub is told at most once, on this connection only.
        """
        message_id = expected.message_id
        if CANCEL in self._features:
            if self._outbox.is_under_way(message_id):
                self._unwanted.add(message_id)
            elif not self._outbox.waits(message_id):  # it has its receipt
                self._cancels.append(message_id)
        self.give_up(expected)

    def data_to_send(self, *, ticks: float) -> list[bytes]:
        """Return the messages to send now. Acks come first, because the hub waits for them.

        `ticks` are the seconds of a monotonic clock.
        """
        cancels, self._cancels = self._cancels, []
        told = [CancelRequest(message_id).to_bytes() for message_id in cancels]
        frames = [*self._acks(ticks), *told, *self._outbox.take(ticks=ticks)]
        return list(serialize_messages(frames))

    @property
    def wants_to_send(self) -> bool:
        """Whether there is something to send now, or to be sent later than was planned before."""
        if self._cancels or self._outbox.wants_to_send or self.inbox.has_urgent_acks:
            return True
        return self._done_due is None and self.inbox.has_acks

    def urgent_acks(self, *, ticks: float) -> list[bytes]:
        """Return the messages with the acks for which the hub or a handler waits, if there are any.

        What is only done goes with them.
        """
        if not self.inbox.has_urgent_acks:
            return []
        return list(serialize_messages(self._acks(ticks)))

    def _acks(self, ticks: float) -> list[bytes]:
        """Return the acks to send now. What is only done waits a little for more of it."""
        if not self.inbox.has_acks:
            return []
        if not self.inbox.has_urgent_acks:
            if self._done_due is None:
                self._done_due = ticks + DONE_WAITS_SECONDS
            if ticks < self._done_due:
                return []
        frames = self.inbox.acks()
        self._done_due = ticks if self.inbox.has_acks else None
        return frames

    def next_due(self) -> float | None:
        """Return when `data_to_send` has more to send without a new event, in ticks, or `None`."""
        dues = [due for due in (self._done_due, self._outbox.next_due()) if due is not None]
        return min(dues, default=None)

    # The connection

    def opened(self, welcome: Welcome, features: Collection[str] = ()) -> None:
        """Begin with a new connection that has logged in and uses `features` of the protocol."""
        self._features = features
        self._outbox.open(welcome.window)
        self.inbox.open(tells_done=DONE in features)
        self._done_due = None

    def lost(self) -> None:
        """Note that the connection was lost: send nothing until the next one."""
        self._outbox.close()
        self._features = ()
        self._cancels.clear()
        self._unwanted.clear()
        self.notices.lost()
        self.inbox.lost()

    def take_mail(self) -> Iterator[Arrived]:
        """Take the mail for which there is room now; yield that whose handlers may begin."""
        return (Arrived(mail.received, mail) for mail in self.inbox.take())

    # Receiving

    def receive(self, message: bytes, *, now: float, ticks: float) -> Iterator[Event]:
        """Yield the events of a message of the hub, frame by frame.

        `now` (seconds since 1970) is for dates, `ticks` (a monotonic clock) for waits. Raises a
        `MalformedError` or `SessionTransport` if the connection can't go on.
        """
        for frame in parse_message(message):
            match frame:
                case Delivery():
                    yield from self._delivered(frame, now)
                case Receipt():
                    self._cancel_unwanted(frame)
                    if self._outbox.settle(frame, ticks=ticks) or not frame.message_id:
                        yield frame
                case Withheld():
                    yield from self._closed(frame, first=frame.seq, last=frame.seq)
                case Gone():
                    yield from self._closed(frame, first=frame.first, last=frame.last)
                case Notice() if frame.stream is not None:
                    if self.notices.arrive(frame):
                        yield frame
                case Notice() | Cancelled() | Failure():
                    yield frame
                case Unknown():
                    logger.debug("ignored a frame of a type that this version does not know")
                case _:
                    raise MalformedFrame("the hub sent a frame of the login after the login")
            yield from self.take_mail()

    def _closed(self, frame: Withheld | Gone, *, first: int, last: int) -> Iterator[Event]:
        if self.inbox.advance(frame.stream, first=first, last=last):
            self.inbox.close(frame.stream, first, last)
            yield frame

    def _cancel_unwanted(self, receipt: Receipt) -> None:
        """Cancel a request whose caller stopped waiting before the hub accepted it."""
        if receipt.message_id in self._unwanted:
            self._unwanted.discard(receipt.message_id)
            if receipt.status == "accepted":
                self._cancels.append(receipt.message_id)

    def _delivered(self, delivery: Delivery, now: float) -> Iterator[Event]:
        stream, seq = delivery.stream, delivery.seq
        if not self.inbox.advance(stream, first=seq, last=seq):
            return  # this connection delivered this position before
        try:
            received = self._verifier.verify(delivery, now=now)
        except SessionTransport:
            raise
        except ATPError as problem:
            # Refuse it instead of dropping it: the hub keeps it as a dead letter for officers.
            logger.warning("a delivery was refused: %s", problem)
            self.inbox.close(stream, seq, seq, problem.code)
            return
        if stream == MAIL:
            self.inbox.seen.forget_expired(now)
            self.inbox.arrive(received)
            return
        self.inbox.close(stream, seq, seq)
        envelope = received.envelope
        key = (envelope.sender, envelope.message_id)
        if not self.inbox.seen.is_repeat(key, expires_at=received.expires_at, now=now):
            yield self._response(received)

    def _response(self, received: Received) -> Event:
        envelope = received.envelope
        expected = self._expected.get(envelope.request_id or "")
        if (
            expected is None
            or expected.target != envelope.sender
            or (expected.signed and received.req != expected.digest)
        ):
            return Arrived(received, None)
        self.give_up(expected)  # answered, so a receipt that got lost no longer matters
        return Answered(expected, received)
