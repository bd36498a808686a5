"""The room for mail that an agent has taken: how much waits, and how many bytes it keeps.

No I/O and no clock.
"""

from __future__ import annotations

from typing import Final

from atp.agent.mail import Mail, MailState

__all__ = ["BACKLOG_LIMIT", "MAIL_BYTES", "MailRoom"]

BACKLOG_LIMIT: Final = 256  # taken mail whose handler has not begun
MAIL_BYTES: Final = 64 * 1024 * 1024  # of taken mail that is not done


class MailRoom:
    """Room for `backlog_limit` messages that wait, and for `bytes_limit` bytes that are not done.

    A message above `bytes_limit` has room when nothing else is kept.
    """

    def __init__(self, *, backlog_limit: int, bytes_limit: int) -> None:
        self._backlog_limit = backlog_limit
        self._backlog = 0  # taken on this connection, and its handler has not begun
        self._bytes_limit = bytes_limit
        self._bytes = 0

    def has_room(self, mail: Mail) -> bool:
        """Whether a message that waits may be taken now."""
        if self._backlog >= self._backlog_limit:
            return False
        return mail.held or not self._bytes or self._bytes + mail.size <= self._bytes_limit

    def enter(self, mail: Mail) -> None:
        """Note that this connection delivered a message that is not done, and it is taken."""
        self._backlog += mail.state is MailState.WAITING
        if not mail.held:
            mail.held = True
            self._bytes += mail.size

    def leave_backlog(self, mail: Mail) -> bool:
        """Note that a message waits no more; return whether it counted. Its state changes after."""
        counted = mail.state is MailState.WAITING and mail.attached and not mail.passed_over
        self._backlog -= counted
        return counted

    def leave(self, mail: Mail) -> None:
        """Note that a message is done, or kept no more. Its state changes after."""
        self.leave_backlog(mail)
        if mail.held:
            mail.held = False
            self._bytes -= mail.size

    def lost(self) -> None:
        """Note that the connection was lost: nothing waits that it delivered."""
        self._backlog = 0
