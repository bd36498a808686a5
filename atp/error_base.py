"""The base of all errors of the protocol, and `excerpt`, which quotes untrusted input in them."""

from __future__ import annotations

__all__ = ["ATPError", "excerpt", "leaves"]

EXCERPT_MAX_CHARS = 60  # enough to recognise a value; a message must not grow with hostile input


class ATPError(Exception):
    """The base of all errors of the protocol. `code` is stable, `detail` is text for people.

    `retry_after` is the number of seconds after which a retry can succeed. `None` means that this
    is not known.
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


def leaves(family: type[ATPError]) -> list[type[ATPError]]:
    """Return the errors of a family that have no errors below them, in the order of their code."""
    below = family.__subclasses__()
    return [family] if not below else [leaf for child in below for leaf in leaves(child)]


def excerpt(value: object) -> str:
    """Return a short printable ASCII text of untrusted input, for a message or a log line."""
    if isinstance(value, str):
        text = ascii(value[:EXCERPT_MAX_CHARS])
    elif isinstance(value, int) and value.bit_length() > EXCERPT_MAX_CHARS * 3:
        text = "a huge integer"  # Python refuses to convert very large integers to text
    else:
        text = ascii(value if isinstance(value, int | float | None) else type(value).__name__)
    return text if len(text) <= EXCERPT_MAX_CHARS else text[: EXCERPT_MAX_CHARS - 3] + "..."
