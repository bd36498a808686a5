"""The failure of a request's handler: how a response reports it, and how its caller hears of it.

It travels in the signed member `payload.error` (docs/protocol.md#the-envelope), never in `data`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from atp.errors import HandlerFailed, excerpt
from atp.trust.envelope import Envelope

__all__ = ["HandlerFailure", "raise_failure"]

DETAIL_MAX_CHARS: Final = 500  # of a text about a failure, sent or shown


@dataclass(frozen=True, slots=True)
class HandlerFailure:
    """What a response reports instead of data. `detail` is for people and is cut if it is long.

    `code` is of 1 to 40 characters: lower-case letters and underscores, in parts joined by dots.
    """

    detail: str
    code: str = HandlerFailed.code

    def members(self) -> dict[str, Any]:
        """Return the members of the payload that report it."""
        return {"error": {"code": self.code, "detail": self.detail[:DETAIL_MAX_CHARS]}}


def raise_failure(response: Envelope) -> None:
    """Raise `HandlerFailed` if a response reports that the handler failed.

    The other side chooses the code, so it names no other class of errors: it is in the detail.
    """
    error = response.error
    if error is None:
        return
    code, detail = error["code"], error.get("detail", "")[:DETAIL_MAX_CHARS]
    raise HandlerFailed(detail if code == HandlerFailed.code else f"{excerpt(code)}: {detail}")
