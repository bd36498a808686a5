"""The filters of the trail's API: a closed table of parameters for lists and exports.

A parameter that the table does not hold is refused, so a mistyped filter never means "no filter".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from django.db.models import Q
from django.http import QueryDict
from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import ValidationError

from atp.log import leaves
from atp.wire.canonical import serialize, sha256_b64url
from registry.hub.secrets import blinded
from registry.trail.kinds import Kind, kinds_named
from registry.trail.logs import known
from registry.trail.models import EntryBody

MOST_VALUES = 50  # of one repeated parameter
TEXT_MAX_CHARS = 200  # the longest column
ASKED_KEPT_BYTES = 1_024  # of one parameter, in the entry of a reading
HEAD_CHARS = 100
MAX_INDEX = 2**63 - 1  # the largest value of the column

# Member of an answer -> look-ups of its value. Answers and CSV columns have this order.
FIELDS: Mapping[str, tuple[str, ...]] = {
    **{member: (attribute,) for attribute, member in leaves.HEADER.items()},
    **dict.fromkeys(("v", "log", "index"), ("position",)),
    "reason": ("body__reason",),
    "leafHash": ("leaf_hash",),
    "leaf": ("leaf",),
    "sections": ("body__digests",),
    "body": tuple(f"body__{name}" for name in ("digests", *leaves.SECTIONS)),
}
NOT_LISTED = {"leaf", "sections", "body"}
LISTED = tuple(name for name in FIELDS if name not in NOT_LISTED)
ORGANISATION = re.compile(r"org_[0-9a-f]{16}")
ORDERS = ("newest", "oldest")

Order = Literal["newest", "oldest"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A filter. `condition` reads its values and returns the database condition.

    `condition` raises `ValueError`, with a text for the caller, if it can't read a value.
    """

    name: str
    condition: Callable[[list[str]], Q]
    description: str
    example: str
    many: bool = False
    type: type = str


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed request. `asked` holds its parameters, for the trail and for cursors."""

    where: Q
    order: Order
    fields: tuple[str, ...]
    asked: Mapping[str, Any]


def parse_query(
    parameters: QueryDict,
    *,
    besides: Sequence[str] = (),
    fields: tuple[str, ...] = LISTED,
    order: Order = "newest",
) -> Query:
    """Parse a query string, without the parameters in `besides`, which the caller reads.

    `fields` and `order` apply if the request names none. Raises `ValidationError`, naming every
    parameter that is unknown or can't be read.
    """
    asked = {name: parameters.getlist(name) for name in sorted(parameters) if name not in besides}
    problems: dict[str, list[str]] = {}
    where = Q()
    for name, values in asked.items():
        try:
            match name:
                case "order":
                    order = _order(values)
                case "fields":
                    fields = _fields(values)
                case _:
                    where &= _condition(name, values)
        except ValueError as exc:
            problems[name] = [str(exc)]
    if problems:
        raise ValidationError(problems)
    return Query(where, order, fields, asked)


def asked_record(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a reader asked for as its entry keeps it.

    A reader chooses how long a request is, and nobody may delete an entry. So of a long parameter
    it keeps head, number of values, size in bytes and digest of their canonical form.
    """
    return {name: _cut(values) for name, values in asked.items()}


def _cut(values: Any) -> Any:
    written = serialize(values)
    if len(written) <= ASKED_KEPT_BYTES:
        return values
    return {
        "head": str(values[0])[:HEAD_CHARS],
        "count": len(values),
        "bytes": len(written),
        "digest": sha256_b64url(written),
    }


def parse_fields(parameters: QueryDict, *, fields: tuple[str, ...]) -> tuple[str, ...]:
    """Return the members to answer with, for a view without filters.

    Raises `ValidationError` if there is another parameter or an unknown member.
    """
    unknown = sorted(set(parameters) - {"fields"})
    if unknown:
        raise ValidationError({unknown[0]: ["there is no such parameter"]})
    if "fields" not in parameters:
        return fields
    try:
        return _fields(parameters.getlist("fields"))
    except ValueError as exc:
        raise ValidationError({"fields": [str(exc)]}) from exc


def _condition(name: str, values: list[str]) -> Q:
    parameter = _BY_NAME.get(name)
    if parameter is None:
        raise ValueError("there is no such parameter")
    return parameter.condition(values if parameter.many else [_only(values)])


def _order(values: list[str]) -> Order:
    match _only(values):
        case "newest":
            return "newest"
        case "oldest":
            return "oldest"
    raise ValueError("must be newest or oldest")


def _fields(values: list[str]) -> tuple[str, ...]:
    """Return the named members in the order of `FIELDS`."""
    names = set(_only(values).split(","))
    unknown = sorted(names - FIELDS.keys())
    if unknown:
        raise ValueError(f"{unknown[0][:40]!r} is not one of {', '.join(FIELDS)}")
    return tuple(name for name in FIELDS if name in names)


def _only(values: list[str]) -> str:
    if len(values) != 1:
        raise ValueError("must be given exactly once")
    return values[0]


def _texts(values: list[str]) -> list[str]:
    if len(values) > MOST_VALUES:
        raise ValueError(f"may be given at most {MOST_VALUES} times")
    return [_text(value) for value in values]


def _text(value: str) -> str:
    if not 1 <= len(value) <= TEXT_MAX_CHARS or "\0" in value:
        raise ValueError(f"must be a text of 1 to {TEXT_MAX_CHARS} characters")
    return value


def _integer(value: str, *, most: int) -> int:
    digits = value.isascii() and value.isdecimal() and len(value) <= len(str(most))
    if not digits or int(value) > most:
        raise ValueError(f"must be a whole number from 0 to {most}")
    return int(value)


def _time(value: str) -> datetime:
    try:
        time = parse_datetime(value)
        if time is not None and time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError("there is no such date or time") from exc
    raise ValueError(
        "must be a time with its zone, such as 2026-03-01T08:00:00Z (write %2B for a +)"
    )


def _kinds(value: str) -> list[Kind]:
    kinds = kinds_named(value)
    if not kinds:
        raise ValueError(f"{value[:40]!r} is not a kind of entry; known are {', '.join(Kind)}")
    return kinds


def _any_of(attribute: str) -> Callable[[list[str]], Q]:
    return lambda values: Q(**{f"{attribute}__in": _texts(values)})


def _bound(lookup: str, read: Callable[[str], Any]) -> Callable[[list[str]], Q]:
    return lambda values: Q(**{lookup: read(values[0])})


def _agent(values: list[str]) -> Q:
    names = _texts(values)
    return Q(sender__in=names) | Q(recipient__in=names) | Q(subject__in=names)


def _index(value: str) -> int:
    return _integer(value, most=MAX_INDEX)


def _position(value: str) -> int:
    """Return the position of the entry with this index in the log that grows."""
    return min(known.first() + _index(value), MAX_INDEX)


def _organisation(values: list[str]) -> Q:
    if ORGANISATION.fullmatch(values[0]) is None:
        raise ValueError("must be the uid of an organisation, such as org_52ad1c9f03be77aa")
    return Q(organisations__contains=values[0])


def _reference(member: str) -> Callable[[list[str]], Q]:
    """Return the condition on a blinded member of the header, for texts that are not blinded."""
    (attribute,) = FIELDS[member]
    return lambda values: Q(
        **{f"{attribute}__in": [blinded(member, text) for text in _texts(values)]}
    )


def _score(value: str) -> int:
    return _integer(value, most=100)


def _header(member: str, description: str, example: str) -> Parameter:
    (attribute,) = FIELDS[member]
    return Parameter(member, _any_of(attribute), description, example, many=True)


PARAMETERS: Sequence[Parameter] = (
    Parameter(
        "kind",
        lambda values: Q(kind__in=[kind for value in values for kind in _kinds(value)]),
        "The kind of entry; `agent.*` means all kinds of `agent`.",
        "envelope.denied",
        many=True,
    ),
    _header("hub", "The hub that entered it.", "hub-1f0c9d2ab37e4411"),
    _header("actor", "Who did it: a pseudonym, `agent:<id>` or `hub`.", "officer:52ad1c9f03be"),
    _header("subject", "The thing that was changed or used.", "analyst-7"),
    _header("sender", "The agent that sent the envelope.", "analyst-7"),
    _header("recipient", "The agent to which it was addressed.", "processor-2"),
    Parameter("agent", _agent, "Sender, recipient or subject.", "analyst-7", many=True),
    _header("messageId", "The envelope's messageId.", "018f5c2e-6a3b-7c41-9d2e-3f5a7b9c1d00"),
    Parameter(
        "requestId", _reference("requestId"), "The request it belongs to.", "req-42", many=True
    ),
    Parameter(
        "onBehalfOf",
        _reference("onBehalfOf"),
        "For whom the sender acted, in its own words.",
        "customer-17",
        many=True,
    ),
    _header("session", "The session in which it was sent.", "5f0c0f2e-6f0a-4f7a-9d0e-2c1f5b7a9e11"),
    _header("attestation", "The `jti` of the attestation that vouched.", "att-31"),
    _header("trace", "The W3C trace id that the sender gave.", "0af7651916cd43dd8448eb211c80319c"),
    _header("senderOrganisation", "The sender's organisation then.", "org_52ad1c9f03be77aa"),
    _header("recipientOrganisation", "The recipient's organisation then.", "org_52ad1c9f03be77aa"),
    Parameter(
        "organisations",
        _organisation,
        "The uid of an organisation that it concerns.",
        "org_52ad1c9f03be77aa",
    ),
    Parameter(
        "cause", _bound("cause", _index), "The index of the entry that caused it.", "41", type=int
    ),
    _header("sensitivity", "Effective sensitivity of the data.", "restricted"),
    _header("verdict", "The verdict on the envelope.", "denied"),
    _header("policy", "Name of the policy that decided.", "Baseline"),
    _header("rule", "Name of the rule that decided.", "no restricted data after hours"),
    _header("issuer", "The issuer of the attestation that counted.", "Acme Trust"),
    Parameter(
        "indexFrom", _bound("position__gte", _position), "This entry and later.", "1000", type=int
    ),
    Parameter(
        "indexTo", _bound("position__lte", _position), "This entry and earlier.", "1999", type=int
    ),
    Parameter(
        "timeFrom",
        _bound("time__gte", _time),
        "At this time or later; RFC 3339 with its zone.",
        "2026-03-01T00:00:00Z",
        type=datetime,
    ),
    Parameter(
        "timeTo",
        _bound("time__lt", _time),
        "Before this time; RFC 3339 with its zone.",
        "2026-04-01T00:00:00Z",
        type=datetime,
    ),
    Parameter("scoreFrom", _bound("score__gte", _score), "This score or more.", "70", type=int),
    Parameter("scoreTo", _bound("score__lte", _score), "This score or less.", "84", type=int),
    Parameter(
        "reason",
        _bound("body__reason__icontains", _text),
        f"A text in the first {EntryBody.REASON_MAX_CHARS} characters of the reason, in upper or "
        "lower case. It reads every entry that the other filters leave: slow without another one.",
        "after hours",
    ),
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
