"""The names of fields in conditions, and how to read their values for one message.

`payload:/data/amount` reads the payload by JSON Pointer (RFC 6901), `time.hour:Europe/Berlin` is
derived from `time.now`, and all other fields are looked up by name. Zones come from the `tzdata`
distribution if it is installed, so that the recorded version is the version in use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from importlib import metadata, resources
from typing import Any
from zoneinfo import ZoneInfo

from atp.errors import ATPError, MalformedDocument, excerpt
from atp.judging.policy.fields import FIELDS, WEEKDAYS, Argument, Field
from atp.wire.canonical import digest
from atp.wire.json_values import is_number

__all__ = [  # noqa: RUF022  # as sorted() has it
    "FieldKey",
    "RE2_VERSION",
    "TIME_ZONE_DATA_VERSION",
    "hash_payload_value",
    "parse_field",
    "read_payload",
    "read_time",
    "recorded_payload_value",
    "split_field",
]

POINTER_MAX_CHARS = 150  # field name and pointer together fit the hub's database column
POINTER_MAX_TOKENS = 32  # as deep as an envelope may nest
SALT_MIN_CHARS = 22  # 128 random bits in base64url
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")  # RFC 6901 section 3, without the empty one
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class FieldKey:
    """A field with its argument. `text` is its form in a condition."""

    text: str
    field: Field
    tokens: tuple[str, ...] = ()
    zone: tzinfo | None = None

    @property
    def in_payload(self) -> bool:
        """Whether the field is a value of the payload."""
        return bool(self.tokens)


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "system"


RE2_VERSION = _version_of("google-re2")
TIME_ZONE_DATA_VERSION = _version_of("tzdata")


def split_field(text: str) -> tuple[str, str]:
    """Name and argument of a condition's field, unchecked; the argument is empty where none is."""
    name, _, argument = text.partition(":")
    return name, argument


def parse_field(text: object) -> FieldKey:
    """Read a field's name with its argument; raises `MalformedDocument`."""
    if not isinstance(text, str):
        raise MalformedDocument(f"field must be a text, not {excerpt(text)}")
    name, colon, argument = text.partition(":")
    field = FIELDS.get(name)
    if field is None:
        names = ", ".join(FIELDS)
        raise MalformedDocument(f"there is no field {excerpt(name)}; use one of: {names}")
    if field.argument is Argument.POINTER:
        return FieldKey(text, field, tokens=_parse_pointer(argument))
    if field.argument is Argument.ZONE:
        return FieldKey(text, field, zone=_load_zone(argument if colon else "UTC"))
    if colon:
        raise MalformedDocument(f"{name} takes nothing after a colon; write {name}")
    return FieldKey(text, field)


def read_payload(payload: object, tokens: tuple[str, ...]) -> object:
    """Return the value at the pointer's `tokens`, or `None` if it is absent or null."""
    value = payload
    for token in tokens:
        if isinstance(value, dict):
            value = value.get(token)
        elif isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
            value = value[int(token)]
        else:
            return None
    return value


def read_time(key: FieldKey, context: Mapping[str, Any]) -> object:
    """Return the hour or weekday in the field's zone, recorded in `context` or from `time.now`."""
    recorded = context.get(key.text)
    if recorded is not None:
        return recorded
    now = context.get("time.now")
    if not is_number(now):
        return None
    try:
        hour, weekday = _local_hour(int(now // 1), key.zone)
    except (OverflowError, ValueError, OSError):
        return None
    return hour if key.field.name == "time.hour" else weekday


def hash_payload_value(value: object, *, salt: str, pointer: str) -> str:
    """Return the hash that is recorded instead of a payload value.

    With the salt, a reader can check a guess of the value. `payload.salt` is erased together with
    the payload; after that no guess can be checked. Raises a `MalformedError` if `value` is not
    JSON.
    """
    return digest(["atp policy value", salt, pointer, value])


def recorded_payload_value(payload: object, key: FieldKey, value: object) -> dict[str, str | None]:
    """Return the record of a payload value: its hash, or `None` if the payload's salt is weak."""
    salt = payload.get("salt") if isinstance(payload, dict) else None
    if not isinstance(salt, str) or len(salt) < SALT_MIN_CHARS:
        return {"hash": None}
    _, pointer = split_field(key.text)
    try:
        return {"hash": hash_payload_value(value, salt=salt, pointer=pointer)}
    except ATPError:  # can't happen for a strictly parsed payload, and a record must not fail
        return {"hash": None}


@lru_cache(maxsize=256)  # a batch has one clock reading
def _local_hour(second: int, zone: tzinfo | None) -> tuple[int, str]:
    local = datetime.fromtimestamp(second, zone or UTC)
    return local.hour, WEEKDAYS[local.weekday()]


def _parse_pointer(pointer: str) -> tuple[str, ...]:
    tokens = pointer.split("/")[1:]
    if (
        len(pointer) > POINTER_MAX_CHARS
        or len(tokens) > POINTER_MAX_TOKENS
        or not _POINTER.fullmatch(pointer)
    ):
        raise MalformedDocument(
            f"{excerpt(pointer)} is not a JSON Pointer of at most {POINTER_MAX_CHARS} characters;"
            " write the field like payload:/data/amount"
        )
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in tokens)


@lru_cache(maxsize=128)
def _load_zone(name: str) -> tzinfo:
    try:
        if not _ZONE.fullmatch(name):
            raise ValueError(name)
        if TIME_ZONE_DATA_VERSION == "system":
            return ZoneInfo(name)
        source = resources.files("tzdata.zoneinfo").joinpath(*name.split("/"))
        with source.open("rb") as stream:
            return ZoneInfo.from_file(stream, key=name)
    except (ValueError, OSError, KeyError) as exc:
        raise MalformedDocument(
            f"{excerpt(name)} is not a time zone; write one like Europe/Berlin, or UTC"
        ) from exc
