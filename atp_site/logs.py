"""Format log records as single lines, so that a line break in a name can't forge a record."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from atp.wire.timestamps import format_milliseconds
from messaging.telemetry import correlation

FORMATS = {"line": "atp_site.logs.LineFormatter", "json": "atp_site.logs.JsonFormatter"}
IDS = (
    "session",
    "batch",
    "messageId",
    "entry",
    "envelopes",
)  # extra fields of a record that are logged

REFUSED_MAX_CHARS = 200
SPARING_SECONDS = 60.0  # in which a repeated trouble is written once
MOST_TROUBLES = 200  # that are remembered; then the counts begin again

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}


class LineFormatter(logging.Formatter):
    """A formatter for people: `time LEVEL logger: message`, tracebacks indented below."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        message = record.getMessage().translate(_CONTROL)
        line = f"{_time(record)} {record.levelname} {record.name}: {message}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).split("\n")
            line += "".join(f"\n    {part.translate(_CONTROL)}" for part in trace)
        return line


class JsonFormatter(logging.Formatter):
    """A formatter for collectors: one JSON object a line, in ASCII (docs/monitoring.md).

    It adds the ids bound by messaging/telemetry/correlation.py.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **correlation.bound(),
            **{name: record.__dict__[name] for name in IDS if name in record.__dict__},
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str).replace("\x7f", "\\u007f")


class OneLineOfRefusals(logging.Filter):
    """A warning of one short line for each request that Django refuses before any view.

    Django logs an error with a traceback and the full text that the caller sent. With many such
    requests a stranger could fill the disk and hide other lines.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten such a record; let every record pass."""
        if record.name.startswith("django.security."):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.msg, record.args = record.getMessage()[:REFUSED_MAX_CHARS], ()
            record.exc_info = None
        return True


@dataclass(slots=True)
class _Trouble:
    """A traceback that was written; `repeats` counts those alike that were not.

    The record is not kept: its traceback would keep every object of its frames alive.
    """

    logger: str
    level: int
    message: str
    until: float
    repeats: int = 0


class SparingHandler(logging.StreamHandler[TextIO]):
    """Writes a traceback once a minute, and then how often it came meanwhile.

    A database that is away or a disk that is full fails every batch, ack, login and lease in the
    same place, many times a second. Alike are tracebacks of one message, one kind of exception and
    one line of code. CRITICAL records, and records without a traceback, are always written.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._troubles: dict[tuple[object, ...], _Trouble] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`, after the counts that are due; logging holds the handler's lock."""
        now = time.monotonic()
        self._tell_counts(now)
        if record.levelno >= logging.CRITICAL or not (record.exc_info and record.exc_info[1]):
            super().emit(record)
            return
        key = _likeness(record, record.exc_info[1])
        if (known := self._troubles.get(key)) is not None:
            known.repeats += 1
            return
        if len(self._troubles) >= MOST_TROUBLES:
            self._troubles.clear()
        until = now + SPARING_SECONDS
        self._troubles[key] = _Trouble(record.name, record.levelno, record.getMessage(), until)
        super().emit(record)

    def _tell_counts(self, now: float) -> None:
        for key, trouble in list(self._troubles.items()):
            if now < trouble.until:
                continue
            del self._troubles[key]
            if trouble.repeats:
                super().emit(_count(trouble))


def _likeness(record: logging.LogRecord, problem: BaseException) -> tuple[object, ...]:
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else ()
    return record.name, record.levelno, str(record.msg), type(problem), place


def _count(trouble: _Trouble) -> logging.LogRecord:
    message = "%d times more within a minute, with the same traceback: %s"
    arguments = (trouble.repeats, trouble.message)
    return logging.LogRecord(trouble.logger, trouble.level, "", 0, message, arguments, None)


def _time(record: logging.LogRecord) -> str:
    """Return the time of a record: RFC 3339 in UTC, to the millisecond."""
    return format_milliseconds(datetime.fromtimestamp(record.created, UTC))
