"""The failure of a request's handler: how a response reports it, and how its caller hears of it.

It travels in the signed member `payload.error` (docs/protocol.md#the-envelope), never in `data`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from atp.errors import BY_CODE, ATPError, HandlerFailed, RecipientNoHandler, from_code
from atp.trust.envelope import Envelope
from atp.wire.words import CODE_PATTERN

__all__ = ["FAILURE_CODE", "HandlerFailure", "failure", "raise_failure"]

DETAIL_MAX_CHARS: Final = 500  # of a text about a failure, sent or shown
FAILURE_CODE: Final = re.compile(CODE_PATTERN)


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
    """Raise the error that a response reports, if it reports one.

    The other side chooses the code, so it names no other class than `HandlerFailed` and
    `RecipientNoHandler`. A code of its own is the `code` of a `HandlerFailed`.
    """
    error = response.error
    if error is not None:
        raise failure(error["code"], error.get("detail", "")[:DETAIL_MAX_CHARS])


def failure(code: str, detail: str) -> ATPError:
    """Return the error for a code that the other side chose; see `raise_failure`."""
    if code in (HandlerFailed.code, RecipientNoHandler.code):
        return from_code(code, detail)
    if code in BY_CODE or FAILURE_CODE.fullmatch(code) is None:
        return HandlerFailed(f"{code}: {detail}")
    problem = HandlerFailed(detail)
    problem.code = code
    return problem
