"""An agent's side of the conversation with a hub, without I/O, clock or randomness.

Bytes of the hub go in by `receive`, which says what they mean; bytes for the hub come out of
`data_to_send`. A session outlives its connections: `opened` and `lost` tell it of them, and what
had no receipt goes again, what comes again is dropped (docs/protocol.md#frames).
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
    """A request that waits for its answer: what the answer must say, and whose it must be."""

    request_id: str
    message_id: str
    target: str
    digest: str
    signed: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a request of ours."""

    expected: Expected
    received: Received


@dataclass(frozen=True, slots=True)
class Arrived:
    """Anything else for a handler; a response here came after its caller had given up.

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
        """Envelopes that have no final receipt."""
        return len(self._outbox)

    @property
    def open_requests(self) -> int:
        """Requests that wait for their answers."""
        return len(self._expected)

    @property
    def settled(self) -> bool:
        """Nothing waits for a receipt, and nothing is left to acknowledge."""
        return not self._outbox and not self._inbox.has_acks()

    # Sending

    def submit(self, message_id: str, data: bytes) -> None:
        """Send an envelope, and send it again until there is a receipt."""
        self._outbox.submit(message_id, data)

    def forget(self, message_id: str) -> None:
        """Stop sending it."""
        self._outbox.forget(message_id)

    def expect(self, expected: Expected) -> None:
        """Wait for the answer to a request."""
        self._expected[expected.request_id] = expected

    def give_up(self, expected: Expected) -> None:
        """Stop waiting for it, and stop sending the request."""
        self._expected.pop(expected.request_id, None)
        self._outbox.forget(expected.message_id)

    def data_to_send(self, *, ticks: float) -> list[bytes]:
        """The messages to send now, acks first: they let the hub go on.

        `ticks` are seconds of a clock that only ever goes forward, from wherever.
        """
        frames = [*self._inbox.acks(), *self._outbox.take(ticks=ticks)]
        return list(serialize_messages(frames))

    def next_due(self) -> float | None:
        """At how many ticks `data_to_send` has more without anything new happening."""
        return self._outbox.next_due()

    # The connection

    def opened(self, welcome: Welcome) -> None:
        """There is a new connection, logged in."""
        self._outbox.open(welcome.window)
        self._inbox.open()

    def lost(self) -> None:
        """The connection is gone; nothing goes until there is another."""
        self._outbox.close()

    def handler_begins(self) -> bool:
        """The longest-waiting `Arrived` of the mail goes to its handler; `True`: acks follow."""
        return self._inbox.begin()

    def set_taking(self, *, taking: bool) -> None:
        """While not taking, an `Arrived` that is held is not acknowledged."""
        self._inbox.set_taking(taking=taking)

    def abandon_mail(self) -> int:
        """No handler will begin any more; how many `Arrived` were still waiting for one."""
        return self._inbox.abandon()

    # Receiving

    def receive(self, message: bytes, *, now: float, ticks: float) -> Iterator[Event]:
        """What a message of the hub means, frame by frame; `now` is for dates, `ticks` for waits.

        Raises a `MalformedError` or `SessionTransport` when the connection can't go on.
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
                case Notice() | Failure():
                    yield frame
                case Unknown():
                    logger.debug(
                        "a frame of a type that this version does not know was passed over"
                    )
                case _:
                    raise MalformedFrame("a frame of the login came after the login")

    def _delivered(self, delivery: Delivery, now: float) -> Iterator[Event]:
        if not self._inbox.advance(delivery.stream, first=delivery.seq, last=delivery.seq):
            return  # this place was here before on this very connection
        try:
            received = self._verifier.verify(delivery, now=now)
        except SessionTransport:
            raise
        except ATPError as problem:
            # Refused and not dropped: the hub keeps it with the dead letters, for people to see.
            logger.warning("a delivery was refused: %s", problem)
            self._inbox.refuse(delivery.stream, delivery.seq, problem.code)
            return
        envelope = received.envelope
        if not self._inbox.remember(
            envelope.sender, envelope.message_id, expires_at=received.expires_at, now=now
        ):
            return
        if envelope.message_type == MessageType.RESPONSE:
            yield self._response(received)
            return
        held = delivery.stream == MAIL
        if held:
            self._inbox.hold(delivery.seq, envelope.sender, envelope.message_id)
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
