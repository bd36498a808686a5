"""What a handler may raise to say what becomes of its message, and what it may return.

Example::

    async def book(envelope):
        if not ledger.is_open:
            raise Retry(after=60)
        if envelope.data["currency"] not in ledger.currencies:
            raise Reject("booking.currency", "this ledger has no such currency")
        ledger.book(envelope.data)
"""

from __future__ import annotations

from typing import Final

from atp.agent.failures import FAILURE_CODE
from atp.errors import MalformedDocument, excerpt
from atp.wire.json_values import is_number

__all__ = ["LONGEST_PAUSE_SECONDS", "Reject", "Retry"]

LONGEST_PAUSE_SECONDS: Final = 3600.0  # of a `Retry`


class Retry(Exception):
    """Raised by a handler: the message is to be handled again.

    `after` is the pause in seconds, at most an hour; without it, the pause grows with each attempt.
    It counts as an attempt. Raises `MalformedDocument` for any other pause.
    """

    def __init__(self, after: float | None = None) -> None:
        if after is not None and not (is_number(after) and 0 <= after <= LONGEST_PAUSE_SECONDS):
            raise MalformedDocument(
                f"Retry(after=...) takes seconds, from 0 to {LONGEST_PAUSE_SECONDS:.0f}"
            )
        super().__init__("try again later" if after is None else f"try again in {after:g} s")
        self.after = after


class Reject(Exception):
    """Raised by a handler: the message is refused for good, and not handled again.

    The caller of a request gets an error with `code` and `detail`. Any other message becomes a dead
    letter with `code`. A code has at most 40 characters: lower-case letters and underscores, in
    parts joined by dots. Raises `MalformedDocument` for any other code.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        if not isinstance(code, str) or FAILURE_CODE.fullmatch(code) is None:
            raise MalformedDocument(
                f"Reject takes a code such as 'booking.closed', not {excerpt(code)}"
            )
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
