"""Format log records as single lines, so that a line break in a name can't forge a record."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

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

    Django logs an error with a traceback, and what the caller sent in full: anybody could fill the
    disk, and hide what matters.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten such a record; let every record pass."""
        if record.name.startswith("django.security."):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.msg, record.args = record.getMessage()[:REFUSED_MAX_CHARS], ()
            record.exc_info = None
        return True


def _time(record: logging.LogRecord) -> str:
    """Return the time of a record: RFC 3339 in UTC, to the millisecond."""
    return format_milliseconds(datetime.fromtimestamp(record.created, UTC))
