"""The formats of exports, and entries as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from atp.log import leaves
from atp.wire.canonical import b64url
from atp.wire.timestamps import format_microseconds
from registry.trail.logs import index_of, place_of
from registry.trail.reading.columns import FIELDS, LISTED
from registry.trail.reading.search import Row

# A spreadsheet runs a cell that begins with one of these as a formula (OWASP, "CSV Injection").
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
QUOTED = frozenset('",\r\n')  # a cell with one of these stands in quotes (RFC 4180, section 2)


@dataclass(frozen=True, slots=True)
class Format:
    """A format of exports. `fields` are its members when the request names none."""

    name: str
    content_type: str
    fields: tuple[str, ...]
    begin: Callable[[tuple[str, ...]], bytes]
    write: Callable[[tuple[str, ...], Sequence[Row]], bytes]


def represent(fields: tuple[str, ...], row: Row) -> dict[str, Any]:
    """Return the members of an entry as JSON values; an erased section is null."""
    shown = _members(fields, row)
    for name in ("sections", "body"):
        if name in shown:
            shown[name] = orjson.loads(orjson.dumps(shown[name]))
    return shown


def guard(text: str) -> str:
    """Return `text`, with an apostrophe in front if a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _members(fields: tuple[str, ...], row: Row) -> dict[str, Any]:
    columns = iter(row[1:])
    shown = {}
    for name in fields:
        values = [next(columns) for _ in FIELDS[name]]
        shown[name] = _READ[name](*values) if name in _READ else values[0]
    return shown


def _body(digests: Any, *contents: Any) -> dict[str, Any]:
    """Return the sections that the digests name, by name. They keep the exact bytes."""
    named = orjson.loads(bytes(digests))
    return {
        name: None if content is None else orjson.Fragment(bytes(content))
        for name, content in zip(leaves.SECTIONS, contents, strict=True)
        if name in named
    }


def _nothing(fields: tuple[str, ...]) -> bytes:
    return b""


def _ndjson(fields: tuple[str, ...], rows: Sequence[Row]) -> bytes:
    """Return one object a line. Bodies keep the exact bytes that the leaf's digest covers."""
    return b"".join(_line(fields, row) for row in rows)


def _line(fields: tuple[str, ...], row: Row) -> bytes:
    return orjson.dumps(_members(fields, row), option=orjson.OPT_APPEND_NEWLINE)


def _csv_head(fields: tuple[str, ...]) -> bytes:
    return _csv_row(fields).encode()


def _csv(fields: tuple[str, ...], rows: Sequence[Row]) -> bytes:
    return "".join(_csv_row(_members(fields, row).values()) for row in rows).encode()


def _csv_row(values: Iterable[Any]) -> str:
    return ",".join(map(_cell, values)) + "\r\n"


def _cell(value: Any) -> str:
    """Return a cell of RFC 4180: nothing for null, and `""` for a text that is empty."""
    if value is None:
        return ""
    text = guard(_text(value))
    if text and QUOTED.isdisjoint(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value)
    return value if isinstance(value, str) else orjson.dumps(value).decode("utf-8")


_READ: dict[str, Callable[..., Any]] = {
    "v": lambda position: leaves.VERSION,
    "log": lambda position: place_of(position).log,
    "index": index_of,
    "time": format_microseconds,
    "leafHash": lambda value: b64url(bytes(value)),
    "leaf": lambda value: bytes(value).decode("utf-8"),
    "sections": lambda value: orjson.Fragment(bytes(value)),
    "body": _body,
}

FORMATS = {
    each.name: each
    for each in (
        Format("ndjson", "application/x-ndjson", (*LISTED, "sections", "body"), _nothing, _ndjson),
        Format("csv", "text/csv; charset=utf-8", LISTED, _csv_head, _csv),
    )
}
