"""What every error of the protocol is, and how untrusted input is quoted in its message."""

from __future__ import annotations

__all__ = ["ATPError", "excerpt"]

EXCERPT_MAX_CHARS = 60  # enough to recognise a value; a message must not grow with hostile input


class ATPError(Exception):
    """Anything the protocol refuses; `code` is stable, `detail` is for people.

    `retry_after` is the number of seconds after which trying again can help; `None` means that the
    error says nothing about trying again.
    """

    code: str = "atp.error"

    def __init_subclass__(cls, *, code: str) -> None:
        super().__init_subclass__()
        cls.code = code

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code


def excerpt(value: object) -> str:
    """A short, printable-ASCII rendering of untrusted input, fit for a message or a log line."""
    if isinstance(value, str):
        text = ascii(value[:EXCERPT_MAX_CHARS])
    elif isinstance(value, int) and value.bit_length() > EXCERPT_MAX_CHARS * 3:
        text = "a huge integer"  # Python refuses to write out the hugest
    else:
        text = ascii(value if isinstance(value, int | float | None) else type(value).__name__)
    return text if len(text) <= EXCERPT_MAX_CHARS else text[: EXCERPT_MAX_CHARS - 3] + "..."
