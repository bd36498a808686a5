"""An agent's side of the conversation with a hub, without I/O, clock or randomness.

`receive` takes the hub's bytes and returns events; `data_to_send` returns the bytes for the hub. A
session outlives its connections, which `opened` and `lost` announce. Envelopes without a receipt
are sent again, and repeated deliveries are dropped (docs/protocol.md#frames).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from atp.agent.inbox import Inbox
from atp.agent.outbox import Outbox
from atp.agent.receiving import Received, Verifier
from atp.errors import ATPError, MalformedFrame, SessionTransport
from atp.types import MessageType
from atp.wire.frames import (
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
from atp.wire.words import MAIL

__all__ = ["AgentSession", "Answered", "Arrived", "Event", "Expected"]

logger = logging.getLogger(__name__)


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
    """A message for a handler. A response here arrived after its caller had stopped waiting.

    `held` mail counts against the backlog until `handler_begins` is called for it.
    """

    received: Received
    held: bool


Event = Answered | Arrived | Receipt | Notice | Failure | Gone | Withheld


class AgentSession:
    """Outbox, inbox and open requests of one agent."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._outbox = Outbox()
        self._inbox = Inbox()
        self._expected: dict[str, Expected] = {}

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
        return not self._outbox and not self._inbox.has_acks()

    # Sending

    def submit(self, message_id: str, data: bytes) -> None:
        """Send an envelope, again and again until its receipt arrives."""
        self._outbox.submit(message_id, data)

    def forget(self, message_id: str) -> None:
        """Stop sending an envelope."""
        self._outbox.forget(message_id)

    def expect(self, expected: Expected) -> None:
        """Wait for the answer to a request."""
        self._expected[expected.request_id] = expected

    def give_up(self, expected: Expected) -> None:
        """Stop waiting for an answer, and stop sending its request."""
        self._expected.pop(expected.request_id, None)
        self._outbox.forget(expected.message_id)

    def data_to_send(self, *, ticks: float) -> list[bytes]:
        """Return the messages to send now. Acks come first, because the hub waits for them.

        `ticks` are the seconds of a monotonic clock.
        """
        frames = [*self._inbox.acks(), *self._outbox.take(ticks=ticks)]
        return list(serialize_messages(frames))

    def next_due(self) -> float | None:
        """Return when `data_to_send` has more to send without a new event, in ticks, or `None`."""
        return self._outbox.next_due()

    # The connection

    def opened(self, welcome: Welcome) -> None:
        """Begin with a new connection that has logged in."""
        self._outbox.open(welcome.window)
        self._inbox.open()

    def lost(self) -> None:
        """Note that the connection was lost: send nothing until the next one."""
        self._outbox.close()

    def handler_begins(self) -> bool:
        """Note that the handler of the oldest held mail begins; return whether acks can go now."""
        return self._inbox.begin()

    def set_taking(self, *, taking: bool) -> None:
        """Set whether held mail is acknowledged."""
        self._inbox.set_taking(taking=taking)

    def abandon_mail(self) -> int:
        """Drop the held mail whose handler has not begun; return how many there were."""
        return self._inbox.abandon()

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
                    if self._outbox.settle(frame, ticks=ticks) or not frame.message_id:
                        yield frame
                case Withheld():
                    if self._inbox.advance(frame.stream, first=frame.seq, last=frame.seq):
                        yield frame
                case Gone():
                    if self._inbox.advance(frame.stream, first=frame.first, last=frame.last):
                        yield frame
                case Notice(stream=None) | Failure():
                    yield frame
                case Notice(stream=stream, seq=seq):
                    if stream and self._inbox.advance(stream, first=seq, last=seq):
                        yield frame
                case Unknown():
                    logger.debug("ignored a frame of a type that this version does not know")
                case _:
                    raise MalformedFrame("the hub sent a frame of the login after the login")

    def _delivered(self, delivery: Delivery, now: float) -> Iterator[Event]:
        if not self._inbox.advance(delivery.stream, first=delivery.seq, last=delivery.seq):
            return  # this connection delivered this position before
        try:
            received = self._verifier.verify(delivery, now=now)
        except SessionTransport:
            raise
        except ATPError as problem:
            # Refuse it instead of dropping it: the hub keeps it as a dead letter for officers.
            logger.warning("a delivery was refused: %s", problem)
            self._inbox.refuse(delivery.stream, delivery.seq, problem.code)
            return
        envelope = received.envelope
        identity = envelope.message_id
        if delivery.redelivered:  # not a repeat, except of the same place
            identity = f"{identity} {delivery.seq}"
        if not self._inbox.remember(
            envelope.sender, identity, expires_at=received.expires_at, now=now
        ):
            return
        if envelope.message_type == MessageType.RESPONSE:
            yield self._response(received)
            return
        held = delivery.stream == MAIL
        if held:
            self._inbox.hold(delivery.seq, envelope.sender, identity)
        yield Arrived(received, held=held)

    def _response(self, received: Received) -> Event:
        envelope = received.envelope
        expected = self._expected.get(envelope.request_id or "")
        if (
            expected is None
            or expected.target != envelope.sender
            or (expected.signed and received.req != expected.digest)
        ):
            return Arrived(received, held=False)
        self.give_up(expected)  # answered, so a receipt that got lost no longer matters
        return Answered(expected, received)
