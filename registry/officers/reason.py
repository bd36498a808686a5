"""Checks the reason that an officer gives for a decision. The trail keeps it for good."""

from __future__ import annotations

from atp.errors import MalformedDocument

REASON_MAX_CHARS = 300  # of the columns that hold one


def check_reason(reason: str) -> str:
    """Return `reason` without blanks around it.

    Raises `MalformedDocument` if it is empty or longer than `REASON_MAX_CHARS`.
    """
    reason = reason.strip()
    if not 1 <= len(reason) <= REASON_MAX_CHARS:
        raise MalformedDocument(
            f"a reason of 1 to {REASON_MAX_CHARS} characters is needed", field="reason"
        )
    return reason
