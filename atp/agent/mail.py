"""One message for a handler, and its state from its arrival until it is done.

waiting -> running -> done | retry | refused          retry -> running -> ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from atp.agent.receiving import Received
from atp.types import MessageType

__all__ = ["MOST_ATTEMPTS", "Mail", "MailKey", "MailState", "name_mail"]

MOST_ATTEMPTS: Final = 5  # docs/protocol.md#acks: then it is refused for good

NAMED_MOST: Final = 20  # messages in one log line

MailKey = tuple[str, str]  # sender and message id


class MailState(Enum):
    """The states of a message. `WITHDRAWN`: the hub took it back before its handler began."""

    WAITING = "waiting"
    RUNNING = "running"
    RETRY = "retry"
    DONE = "done"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


@dataclass(slots=True, eq=False)
class Mail:
    """A message for a handler.

    `place` is its place in the stream. `attached` is whether this connection has delivered it and
    the agent has taken it; only then a handler may begin. `dispatched` is whether handlers have it
    in their queue, `held` whether its bytes count, and `passed_over` whether others go before it in
    the queue, because of the rule of its type: then it does not count against the backlog.
    `failures` counts the handlers that have begun and failed, in this process and before.
    """

    received: Received
    place: int
    failures: int = 0
    state: MailState = MailState.WAITING
    attached: bool = False
    dispatched: bool = False
    held: bool = False
    passed_over: bool = False

    @property
    def key(self) -> MailKey:
        """The sender and the message id, which identify repeats."""
        return self.received.envelope.sender, self.received.envelope.message_id

    @property
    def seen_key(self) -> MailKey:
        """What identifies its repeats when it is done: of what officers redeliver, also its place.

        Such a message is one that was handled before, and is to be handled again.
        """
        sender, message_id = self.key
        if self.received.delivery.redelivered:
            return sender, f"{message_id} {self.place}"
        return self.key

    @property
    def size(self) -> int:
        """The bytes of its envelope."""
        return len(self.received.envelope.canonical)

    @property
    def kind(self) -> MessageType:
        """The type of the message."""
        return self.received.envelope.message_type

    @property
    def is_open(self) -> bool:
        """Whether a handler may still begin."""
        return self.state in (MailState.WAITING, MailState.RETRY)

    @property
    def is_alone(self) -> bool:
        """Whether its handler runs beside no other, because an earlier one failed or crashed."""
        return self.failures > 0

    def __str__(self) -> str:
        sender, message_id = self.key
        attempt = f", attempt {self.failures + 1}" if self.failures else ""
        return f"{self.kind} {message_id} from {sender}{attempt}"


def name_mail(some: Sequence[Mail]) -> str:
    """Return type, id and sender of the first messages, and how many more there are."""
    told = ", ".join(str(mail) for mail in some[:NAMED_MOST])
    more = len(some) - NAMED_MOST
    return f"{told}, and {more} more" if more > 0 else told
