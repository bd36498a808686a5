"""Reads of entries for the API: pages by keyset, and exports as streams in constant memory.

A stream reads its next page, with a short query, only after it has sent the one before. The
streams are asynchronous, because Django reads a synchronous iterator to its end before it sends
the first byte.
"""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson
from asgiref.sync import sync_to_async

from atp.log import leaves
from atp.wire.canonical import b64url
from atp.wire.timestamps import format_microseconds
from registry.api.trail.filters import FIELDS, LISTED, Query
from registry.trail.logs import index_of, known, place_of
from registry.trail.models import Entry

PAGE_ENTRIES = 500  # in one query and one chunk of a stream: a few hundred KiB

EXPORTS_AT_A_TIME = 8  # in one process: each holds a socket and runs queries

# A spreadsheet runs a cell that begins with one of these as a formula (OWASP, "CSV Injection").
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


Row = Sequence[Any]  # the position, then the columns of the members that were asked for


@dataclass(frozen=True, slots=True)
class Format:
    """A format of exports. `fields` are its members when the request names none."""

    name: str
    content_type: str
    fields: tuple[str, ...]
    begin: Callable[[tuple[str, ...]], bytes]
    write: Callable[[tuple[str, ...], Sequence[Row]], bytes]


def read_page(query: Query, *, log_size: int, after: int | None, limit: int) -> list[Row]:
    """Return at most `limit` rows that follow the entry `after`, in the query's order.

    Only the first `log_size` entries of the log are read, so a list or an export ends although
    the log grows.
    """
    rows = Entry.objects.before(log_size).filter(query.where)
    newest = query.order == "newest"
    if after is not None:
        rows = rows.filter(position__lt=after) if newest else rows.filter(position__gt=after)
    columns = _columns(query.fields)
    return list(
        rows.order_by("-position" if newest else "position").values_list("position", *columns)[
            :limit
        ]
    )


def read_entry(index: int, fields: tuple[str, ...]) -> Row | None:
    """Return one entry; `None` if the log has no such index."""
    found = Entry.objects.filter(position=known.first() + index)
    return found.values_list("position", *_columns(fields)).first()


def represent(fields: tuple[str, ...], row: Row) -> dict[str, Any]:
    """Return the members of an entry as JSON values; an erased section is null."""
    shown = _members(fields, row)
    for name in ("sections", "body"):
        if name in shown:
            shown[name] = orjson.loads(orjson.dumps(shown[name]))
    return shown


async def stream(query: Query, written_as: Format, *, log_size: int) -> AsyncGenerator[bytes, None]:
    """Yield an export in chunks. Each chunk is read only when the one before was sent."""
    yield written_as.begin(query.fields)
    after = None
    while True:
        rows = await sync_to_async(read_page)(
            query, log_size=log_size, after=after, limit=PAGE_ENTRIES
        )
        if rows:
            yield written_as.write(query.fields, rows)
            after = rows[-1][0]
        if len(rows) < PAGE_ENTRIES:
            return


class ExportSlot:
    """A slot for one export; it is free again when it is left, or when no object refers to it.

    A caller may hang up before the stream of the answer begins, and then nothing of it ever runs.
    """

    def __init__(self, running: RunningExports) -> None:
        self._running: RunningExports | None = running

    def leave(self) -> None:
        """Free the slot; do nothing if it is free."""
        running, self._running = self._running, None
        if running is not None:
            running.note_left()

    __del__ = leave


class RunningExports:
    """How many exports this process streams. Views take a slot before anything is read."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.RLock()  # a slot may be collected while its thread holds it

    def take(self) -> ExportSlot | None:
        """Return a slot, or `None` if this process streams as many exports as it may."""
        with self._lock:
            if self._count >= EXPORTS_AT_A_TIME:
                return None
            self._count += 1
        return ExportSlot(self)

    def note_left(self) -> None:
        """Count one slot less that is taken."""
        with self._lock:
            self._count -= 1


async def held(
    slot: ExportSlot, chunks: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """The same stream; it leaves the slot however it ends."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
    finally:
        slot.leave()


running = RunningExports()


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


def _columns(fields: tuple[str, ...]) -> list[str]:
    return [column for name in fields for column in FIELDS[name]]


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
    return _csv_text([fields])


def _csv(fields: tuple[str, ...], rows: Sequence[Row]) -> bytes:
    return _csv_text([[_cell(v) for v in _members(fields, row).values()] for row in rows])


def _csv_text(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(value)
    text = value if isinstance(value, str) else orjson.dumps(value).decode("utf-8")
    return guard(text)


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
