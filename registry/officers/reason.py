"""The reason that an officer gives for a decision; it stands in the trail for good."""

from __future__ import annotations

from atp.errors import MalformedDocument

REASON_MAX_CHARS = 300  # of the columns that hold one


def check_reason(reason: str) -> str:
    """`reason` without blanks around it; raises `MalformedDocument` where there is none."""
    reason = reason.strip()
    if not 1 <= len(reason) <= REASON_MAX_CHARS:
        raise MalformedDocument(
            f"a reason of 1 to {REASON_MAX_CHARS} characters is needed", field="reason"
        )
    return reason
