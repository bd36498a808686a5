"""Times on the wire: RFC 3339 in UTC with `Z`, by grammar, from and to seconds and datetimes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from atp.errors import MalformedTimestamp, excerpt

__all__ = ["format_microseconds", "format_milliseconds", "format_timestamp", "parse_timestamp"]

# RFC 3339 section 5.6, with upper-case letters, without an offset and without leap seconds: the
# clocks that the times are compared with have no leap seconds.
_GRAMMAR = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](?:\.[0-9]{1,9})?Z", re.ASCII
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_timestamp(text: object) -> float:
    """Return the time of an RFC 3339 text, in seconds since 1970; raises `MalformedTimestamp`.

    Digits beyond the microsecond are ignored.
    """
    if not isinstance(text, str) or not _GRAMMAR.fullmatch(text):
        raise MalformedTimestamp(f"{excerpt(text)} is not like 2026-01-31T23:59:59Z")
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as exc:
        raise MalformedTimestamp(f"{excerpt(text)} is not a date that exists") from exc


def format_timestamp(seconds: float) -> str:
    """Return the text of a time in seconds since 1970, rounded to the millisecond."""
    # Rounded here, because `format_milliseconds` cuts: 0.0009999 s would become 0.000 s.
    moment = _EPOCH + timedelta(milliseconds=round(seconds * 1000))
    return format_milliseconds(moment)


def format_milliseconds(moment: datetime) -> str:
    """Return the text of an aware datetime, cut (not rounded) to the millisecond."""
    return _in_utc(moment).isoformat(timespec="milliseconds") + "Z"


def format_microseconds(moment: datetime) -> str:
    """Return the text of an aware datetime, always with six decimals: texts sort as times do."""
    return _in_utc(moment).isoformat(timespec="microseconds") + "Z"


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
