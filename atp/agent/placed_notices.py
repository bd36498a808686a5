"""The notices of an agent that have a place in its stream `answers`, until they are done.

No I/O and no clock. As other mail, a notice is taken when it arrives, and done when it is handled.
The hub repeats what is not done on each connection; a repeat of one that is known is not handled.
"""

from __future__ import annotations

from typing import Final

from atp.agent.inbox import Inbox
from atp.agent.mail import MailKey
from atp.wire.frames import Notice
from atp.wire.words import ANSWERS

__all__ = ["PlacedNotices"]

REMEMBERED_SECONDS: Final = 24 * 3600.0


class PlacedNotices:
    """The notices that are not done. `inbox` has their places, and remembers what is done."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._open: dict[int, bool] = {}  # by place: whether this connection has delivered it

    def arrive(self, notice: Notice) -> bool:
        """Take a notice; return whether it is to be handled.

        Raises `SessionTransport` if there is a gap before it.
        """
        stream, place = notice.stream or ANSWERS, notice.seq
        if not self._inbox.advance(stream, first=place, last=place):
            return False
        if stream != ANSWERS or self._inbox.seen.code(_key(place)) is not None:
            self._inbox.close(stream, place, place)
            return False
        self._inbox.answers.take(place, place)
        is_new = place not in self._open
        self._open[place] = True
        return is_new

    def done(self, notice: Notice, *, now: float) -> None:
        """Note that a notice is handled; do nothing for one without a place. `now`: since 1970."""
        place = notice.seq
        is_attached = self._open.pop(place, None)
        if is_attached is None:
            return
        self._inbox.seen.add(_key(place), "", now + REMEMBERED_SECONDS)
        if is_attached:
            self._inbox.answers.finish(place, place)

    def lost(self) -> None:
        """Note that the connection was lost."""
        self._open = dict.fromkeys(self._open, False)

    def drop(self) -> None:
        """Forget what is not done: the hub repeats it at the next login."""
        self._open.clear()


def _key(place: int) -> MailKey:
    """Return what identifies repeats of a notice: no agent has an empty id."""
    return "", f"notice {place}"
