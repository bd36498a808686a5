"""Text files as editors and shells of all systems write them."""

from __future__ import annotations

import codecs

from atp.errors import MalformedDocument

__all__ = ["as_utf8"]

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def as_utf8(data: bytes, *, what: str) -> bytes:
    """Return the content of a file in UTF-8 without a byte order mark.

    PowerShell writes UTF-16, and editors on Windows put a mark before UTF-8. `what` names the file
    in errors. Raises `MalformedDocument` if the content is neither UTF-8 nor marked UTF-16.
    """
    try:
        text = data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
        return text.encode("utf-8")
    except UnicodeError as exc:
        raise MalformedDocument(f"{what} is not a text in UTF-8; save it as UTF-8") from exc
