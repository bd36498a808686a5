"""Checks the reason that an officer gives for a decision. The trail keeps it for good."""

from __future__ import annotations

from atp.errors import MalformedDocument
from registry.plain_text import check_text

REASON_MAX_CHARS = 300  # of the columns that hold one


def check_reason(reason: str, *, required: bool = True) -> str:
    """Return `reason` in its canonical form, without blanks around it.

    Raises `MalformedDocument` if it is empty though `required`, longer than `REASON_MAX_CHARS`, or
    has a character that can't be seen.
    """
    reason = check_text(reason, "reason", lines=True)
    if not int(required) <= len(reason) <= REASON_MAX_CHARS:
        raise MalformedDocument(
            f"a reason of 1 to {REASON_MAX_CHARS} characters is needed", field="reason"
        )
    return reason
