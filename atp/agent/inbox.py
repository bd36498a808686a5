"""An agent's positions in its two streams, its mail, and the ids that it has handled.

No I/O and no clock. Mail is *taken* into a bounded queue, and it is *done* when its handler has
ended (docs/protocol.md#acks). Mail that is not taken stays with the hub: handlers do not get it.
Positions begin anew with each connection. The hub repeats what is not done, and repeats are found
by sender and message id: mail that waits or runs is not run again, and what is done is acknowledged
again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from atp.agent.acks import DoneAcks, PlainAcks, StreamAcks
from atp.agent.mail import Mail, MailKey, MailState
from atp.agent.mail_room import BACKLOG_LIMIT, MAIL_BYTES, MailRoom
from atp.agent.receiving import Received
from atp.agent.seen import SEEN_LIMIT, SeenMessages
from atp.errors import SessionTransport
from atp.wire.words import ANSWERS, MAIL, STREAMS, Stream

__all__ = ["Inbox"]


@dataclass(slots=True)
class _Arrival:
    """Places that have arrived and are not taken: one with mail, or some that are closed.

    Closed places need no handler. With `code`, the agent refuses the one at `first`.
    """

    first: int
    last: int
    mail: Mail | None = None
    code: str = ""


class Inbox:
    """The positions, mail and acks of one agent.

    `seen` are the messages that it has handled. It takes no more mail while it holds `bytes_limit`
    bytes; a larger message is taken when it holds nothing else. It goes beyond its limits while
    `needs_more()`: all handlers wait, and what they wait for may depend on mail behind the limit.
    """

    def __init__(
        self,
        *,
        backlog_limit: int = BACKLOG_LIMIT,
        seen_limit: int = SEEN_LIMIT,
        bytes_limit: int = MAIL_BYTES,
    ) -> None:
        self._room = MailRoom(backlog_limit=backlog_limit, bytes_limit=bytes_limit)
        self.seen = SeenMessages(limit=seen_limit)
        self._taking = False  # until there is a handler
        self.needs_more: Callable[[], bool] = lambda: False  # although there is no room
        self._mail: dict[MailKey, Mail] = {}  # not done
        self._arrivals: deque[_Arrival] = deque()
        self._positions: dict[Stream, int | None] = {}
        self._acks: dict[Stream, StreamAcks] = {}
        self.open(tells_done=False)

    # The connection

    def open(self, *, tells_done: bool) -> None:
        """Begin with a new connection, whose hub has the feature `done` or not."""
        self.lost()
        self._positions = dict.fromkeys(STREAMS)
        kind: type[StreamAcks] = DoneAcks if tells_done else PlainAcks
        self._acks = {stream: kind(stream) for stream in STREAMS}

    def lost(self) -> None:
        """Note that the connection ended. What was not taken comes again as new mail."""
        for arrival in self._arrivals:
            if arrival.mail is not None and not arrival.mail.dispatched:
                self._mail.pop(arrival.mail.key, None)
        self._arrivals.clear()
        self._room.lost()
        for mail in self._mail.values():
            mail.attached = mail.passed_over = False

    def advance(self, stream: Stream, *, first: int, last: int) -> bool:
        """Note the positions `first` to `last`; return whether they are new on this connection.

        Raises `SessionTransport` if there is a gap before them. To go on would acknowledge
        deliveries that never arrived, so the connection must end.
        """
        seen = self._positions[stream]
        if seen is None and stream == MAIL:
            self._withdraw(1, first - 1)  # the hub counts it as done
        if seen is not None and first > seen + 1:
            raise SessionTransport(
                f"stream {stream} jumped from {seen} to {first};"
                " a new connection delivers the missing ones"
            )
        if seen is not None and last <= seen:
            return False
        self._positions[stream] = last
        return True

    # Arrivals

    def close(self, stream: Stream, first: int, last: int, code: str = "") -> None:
        """Note places that no handler gets. With `code`, the agent refuses the one at `first`."""
        if stream == ANSWERS:
            self.answers.take(first, last)
            self.answers.finish(first, last, code)
            return
        if not code:
            self._withdraw(first, last)
        self._arrivals.append(_Arrival(first, last, code=code))

    def arrive(self, received: Received) -> None:
        """Note a message for a handler, or a repeat of one."""
        delivery = received.delivery
        place = delivery.seq
        mail = Mail(received, place, delivery.attempt - 1)
        known = self._mail.get(mail.key)
        if known is not None:
            known.place = place
            known.failures = max(known.failures, mail.failures)
            self._arrivals.append(_Arrival(place, place, known))
        elif (code := self.seen.code(mail.seen_key)) is not None:
            self._arrivals.append(_Arrival(place, place, code=code))
        else:
            self._mail[mail.key] = mail
            self._arrivals.append(_Arrival(place, place, mail))

    # Taking

    def set_taking(self, *, taking: bool) -> None:
        """Set whether mail is taken. Mail that is not taken stays with the hub."""
        self._taking = taking

    def take(self) -> Iterator[Mail]:
        """Take what there is room for, in order; yield the mail that a handler may begin now.

        It may be a repeat of mail that handlers have in their queue already.
        """
        acks = self._acks[MAIL]
        while self._arrivals and self._may_take(self._arrivals[0].mail):
            arrival = self._arrivals.popleft()
            acks.take(arrival.first, arrival.last)
            if arrival.mail is None:
                acks.finish(arrival.first, arrival.last, arrival.code)
            elif self._attach(arrival.mail):
                yield arrival.mail

    def _may_take(self, mail: Mail | None) -> bool:
        if mail is None or mail.state is not MailState.WAITING:
            return True
        return self._taking and (self._room.has_room(mail) or self.needs_more())

    def _attach(self, mail: Mail) -> bool:
        """Note that this connection delivered the mail, and tell its state.

        Return whether its handler may begin now.
        """
        acks = self._acks[MAIL]
        mail.attached = True
        if mail.is_open:
            self._room.enter(mail)
        match mail.state:
            case MailState.RUNNING:
                acks.begin(mail.place)
            case MailState.RETRY:
                acks.fail(mail.place, mail.failures)
            case MailState.DONE | MailState.REFUSED:
                acks.finish(mail.place, mail.place, self.seen.code(mail.seen_key) or "")
        return mail.is_open

    # Handling

    def begin(self, mail: Mail) -> None:
        """Note that the handler of the mail begins."""
        self._room.leave_backlog(mail)
        mail.state = MailState.RUNNING
        if mail.attached:
            self._acks[MAIL].begin(mail.place)

    def pass_over(self, mail: Mail) -> bool:
        """Count the mail no more against the backlog; return whether it was counted."""
        counted = self._room.leave_backlog(mail)
        mail.passed_over = True
        return counted

    def retry(self, mail: Mail) -> None:
        """Note that the handler failed and that another one will begin."""
        mail.failures += 1
        mail.state = MailState.RETRY
        if mail.attached:
            self._acks[MAIL].fail(mail.place, mail.failures)

    def finish(self, mail: Mail, code: str = "") -> None:
        """Note that the mail is done; with `code`, that it is refused for good."""
        self._room.leave(mail)
        mail.state = MailState.REFUSED if code else MailState.DONE
        self._mail.pop(mail.key, None)
        self.seen.add(mail.seen_key, code, mail.received.expires_at)
        if mail.attached:
            self._acks[MAIL].finish(mail.place, mail.place, code)

    def hand_back(self) -> list[Mail]:
        """Drop the mail whose handler does not run, and return it: the hub delivers it again.

        This is for the time after the connection has ended.
        """
        dropped = [mail for mail in self._mail.values() if mail.is_open]
        for mail in dropped:
            self._drop(mail)
        return dropped

    def cut(self, mail: Mail) -> None:
        """Note that the handler of the mail was cancelled: the hub delivers it again."""
        self._drop(mail)

    def _withdraw(self, first: int, last: int) -> None:
        """Drop mail of earlier connections which the hub no longer delivers."""
        for mail in [m for m in self._mail.values() if not m.attached and first <= m.place <= last]:
            if mail.is_open and mail.dispatched:
                self._drop(mail)

    def _drop(self, mail: Mail) -> None:
        self._room.leave(mail)
        mail.state = MailState.WITHDRAWN
        self._mail.pop(mail.key, None)

    # Acks

    @property
    def answers(self) -> StreamAcks:
        """The acks of the stream `answers` on this connection."""
        return self._acks[ANSWERS]

    @property
    def has_acks(self) -> bool:
        """Whether there is anything to tell the hub."""
        return any(acks.waiting for acks in self._acks.values())

    @property
    def has_urgent_acks(self) -> bool:
        """Whether the hub or a handler waits for what there is to tell."""
        return any(acks.urgent for acks in self._acks.values())

    def acks(self) -> list[bytes]:
        """Return the acks to send now. If `has_acks` is still true, there are more."""
        return [frame for acks in self._acks.values() for frame in acks.frames()]
