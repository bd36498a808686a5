"""The filters of the trail: a closed table of parameters for lists and exports.

A parameter that the table does not hold is refused, so a mistyped filter never means "no filter".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q
from django.http import QueryDict
from django.utils.dateparse import parse_datetime

from atp.wire.canonical import serialize, sha256_b64url
from atp.wire.words import SENSITIVITIES
from registry.hub.secrets import blinded
from registry.trail.kinds import VERDICTS, Kind, kinds_named
from registry.trail.logs import known
from registry.trail.models import INDEXED_WHERE_NAMED, EntryBody
from registry.trail.reading.columns import FIELDS, LISTED
from registry.trail.reading.search import Filter, LogRange, Order, Query

MOST_VALUES = 50  # of one repeated parameter
TEXT_MAX_CHARS = 200  # the longest column
ASKED_KEPT_BYTES = 1_024  # of one parameter, in the entry of a reading
HEAD_CHARS = 100
MAX_INDEX = 2**63 - 1  # the largest value of the column

ORDERS = ("newest", "oldest")

# The filters by whose index entries are found, and which of two goes first: the one of whose values
# an entry has the rarer one. Each is a documented combination with every order and every limit of
# place and time (docs/auditing.md#what-is-fast).
LEADING = (
    "messageId",
    "requestId",
    "trace",
    "onBehalfOf",
    "attestation",
    "subject",
    "actor",
    "agent",
    "sender",
    "recipient",
    "rule",
    "policy",
    "issuer",
    "verdict",
    "kind",
    "sensitivity",
)
ORGANISATION = re.compile(r"org_[0-9a-f]{16}")


class UnreadableQuery(ValueError):
    """A query has parameters that are unknown or can't be read; `problems` are by parameter."""

    def __init__(self, problems: Mapping[str, list[str]]) -> None:
        super().__init__("; ".join(f"{name}: {texts[0]}" for name, texts in problems.items()))
        self.problems = problems


def _unlimited(limits: LogRange, values: list[str]) -> LogRange:
    return limits


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query. It filters, limits where in the log is searched, or both.

    `branches` reads its values and returns the conditions of which an entry fulfils one. `limit`
    reads its value and returns the limits with it. Both raise `ValueError`, with a text for the
    caller, if they can't read a value. `words` are all values there are.
    """

    name: str
    description: str
    example: str
    branches: Callable[[list[str]], list[Q]] | None = None
    limit: Callable[[LogRange, list[str]], LogRange] = _unlimited
    many: bool = False
    type: type = str
    in_body: bool = False
    words: tuple[str, ...] = ()


def parse_query(
    parameters: QueryDict,
    *,
    besides: Sequence[str] = (),
    fields: tuple[str, ...] = LISTED,
    order: Order = "newest",
) -> Query:
    """Parse a query string, without the parameters in `besides`, which the caller reads.

    `fields` and `order` apply if the request names none. Raises `UnreadableQuery`, naming every
    parameter that is unknown or can't be read.
    """
    asked = {name: parameters.getlist(name) for name in sorted(parameters) if name not in besides}
    problems: dict[str, list[str]] = {}
    filters: dict[str, Filter] = {}
    limits = LogRange()
    for name, values in asked.items():
        try:
            match name:
                case "order":
                    order = _order(values)
                case "fields":
                    fields = _fields(values)
                case _:
                    parameter = _known(name)
                    given = _values(parameter, values)
                    limits = parameter.limit(limits, given)
                    if parameter.branches is not None:
                        filters[name] = _filter(parameter, given)
        except ValueError as exc:
            problems[name] = [str(exc)]
    problems = {**_reversed(parameters, limits), **problems}
    if problems:
        raise UnreadableQuery(problems)
    return Query(filters, limits, order, fields, asked)


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

    Raises `UnreadableQuery` if there is another parameter or an unknown member.
    """
    unknown = sorted(set(parameters) - {"fields"})
    if unknown:
        raise UnreadableQuery({unknown[0]: ["there is no such parameter"]})
    if "fields" not in parameters:
        return fields
    try:
        return _fields(parameters.getlist("fields"))
    except ValueError as exc:
        raise UnreadableQuery({"fields": [str(exc)]}) from exc


def _known(name: str) -> Parameter:
    if name not in _BY_NAME:
        raise ValueError("there is no such parameter")
    return _BY_NAME[name]


def _values(parameter: Parameter, values: list[str]) -> list[str]:
    return values if parameter.many else [_only(values)]


def _filter(parameter: Parameter, values: list[str]) -> Filter:
    assert parameter.branches is not None
    rank = LEADING.index(parameter.name) if parameter.name in LEADING else None
    branches = tuple(dict.fromkeys(parameter.branches(values)))
    return Filter(branches, rank, in_body=parameter.in_body)


def _reversed(parameters: QueryDict, limits: LogRange) -> dict[str, list[str]]:
    """Return what is wrong with ranges whose end lies before their begin."""
    empty = {
        "indexTo": _is_reversed(limits.first, limits.last),
        "timeTo": _is_reversed(limits.since, limits.until),
        "scoreTo": _is_reversed(*(_score_or_none(parameters.get(n)) for n in _SCORES)),
    }
    return {
        name: [f"must not be less than {name.removesuffix('To')}From"]
        for name, wrong in empty.items()
        if wrong
    }


def _is_reversed(begin: Any, end: Any) -> bool:
    return begin is not None and end is not None and bool(end < begin)


def _score_or_none(value: str | None) -> int | None:
    """Return a score; `None` if it is missing or not a score, which is refused elsewhere."""
    try:
        return None if value is None else _score(value)
    except ValueError:
        return None


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


def _branches_of(attribute: str, read: Callable[[list[str]], list[str]]) -> Any:
    """Return the function that makes a branch of each value of a column."""
    named = {f"{attribute}__named": True} if attribute in INDEXED_WHERE_NAMED else {}
    return lambda values: [Q(**{attribute: value}, **named) for value in read(values)]


def _one_of(words: Sequence[str]) -> Callable[[list[str]], list[str]]:
    def read(values: list[str]) -> list[str]:
        for value in values:
            if value not in words:
                raise ValueError(f"must be one of {', '.join(words)}")
        return values

    return read


def _compared(lookup: str, read: Callable[[str], Any]) -> Callable[[list[str]], list[Q]]:
    return lambda values: [Q(**{lookup: read(values[0])})]


def _limited(name: str, read: Callable[[str], Any]) -> Callable[[LogRange, list[str]], LogRange]:
    return lambda limits, values: replace(limits, **{name: read(values[0])})


def _limited_to_hubs(limits: LogRange, values: list[str]) -> LogRange:
    return replace(limits, hubs=tuple(_texts(values)))


def _agent(values: list[str]) -> list[Q]:
    columns = ("sender", "recipient", "subject")
    return [Q(**{column: name}) for name in _texts(values) for column in columns]


def _kind(values: list[str]) -> list[Q]:
    return [Q(kind=kind) for value in values for kind in _kinds(value)]


def read_index(value: str, *, name: str) -> int:
    """Return the index in a parameter. Raises `UnreadableQuery` if it is none."""
    try:
        return _index(value)
    except ValueError as exc:
        raise UnreadableQuery({name: [str(exc)]}) from exc


def _index(value: str) -> int:
    return _integer(value, most=MAX_INDEX)


def _position(value: str) -> int:
    """Return the position of the entry with this index in the log that grows."""
    return position_of(_index(value))


def position_of(index: int) -> int:
    """Return the position of an entry of the log that grows; `MAX_INDEX` if there is none."""
    return min(known.first() + index, MAX_INDEX)


def _organisation(values: list[str]) -> list[Q]:
    if ORGANISATION.fullmatch(values[0]) is None:
        raise ValueError("must be the uid of an organisation, such as org_52ad1c9f03be77aa")
    return [Q(organisations__contains=values[0])]


def _score(value: str) -> int:
    return _integer(value, most=100)


def _header(
    member: str, description: str, example: str, *, words: tuple[str, ...] = ()
) -> Parameter:
    read = _one_of(words) if words else _texts
    (attribute,) = FIELDS[member]
    branches = _branches_of(attribute, read)
    return Parameter(member, description, example, branches, many=True, words=words)


def _reference(member: str, description: str, example: str) -> Parameter:
    """Return the filter by a blinded member of the header; its values are not blinded."""
    (attribute,) = FIELDS[member]
    branches = _branches_of(attribute, lambda values: [blinded(member, v) for v in _texts(values)])
    return Parameter(member, description, example, branches, many=True)


PARAMETERS: Sequence[Parameter] = (
    Parameter(
        "kind",
        "The kind of entry; `agent.*` means all kinds of `agent`.",
        "envelope.denied",
        _kind,
        many=True,
    ),
    Parameter(
        "hub",
        "The hub that entered it.",
        "hub-1f0c9d2ab37e4411",
        _branches_of("hub", _texts),
        limit=_limited_to_hubs,
        many=True,
    ),
    _header("actor", "Who did it: a pseudonym, `agent:<id>` or `hub`.", "officer:52ad1c9f03be"),
    _header("subject", "The thing that was changed or used.", "analyst-7"),
    _header("sender", "The agent that sent the envelope.", "analyst-7"),
    _header("recipient", "The agent to which it was addressed.", "processor-2"),
    Parameter("agent", "Sender, recipient or subject.", "analyst-7", _agent, many=True),
    _header("messageId", "The envelope's messageId.", "018f5c2e-6a3b-7c41-9d2e-3f5a7b9c1d00"),
    _reference("requestId", "The request it belongs to.", "req-42"),
    _reference("onBehalfOf", "For whom the sender acted, in its own words.", "customer-17"),
    _header("session", "The session in which it was sent.", "5f0c0f2e-6f0a-4f7a-9d0e-2c1f5b7a9e11"),
    _header("attestation", "The `jti` of the attestation that vouched.", "att-31"),
    _header("trace", "The W3C trace id that the sender gave.", "0af7651916cd43dd8448eb211c80319c"),
    _header("senderOrganisation", "The sender's organisation then.", "org_52ad1c9f03be77aa"),
    _header("recipientOrganisation", "The recipient's organisation then.", "org_52ad1c9f03be77aa"),
    Parameter(
        "organisations",
        "The uid of an organisation that it concerns.",
        "org_52ad1c9f03be77aa",
        _organisation,
    ),
    Parameter(
        "cause",
        "The index of the entry that caused it.",
        "41",
        _compared("cause", _index),
        type=int,
    ),
    _header("sensitivity", "Effective sensitivity of the data.", "restricted", words=SENSITIVITIES),
    _header("verdict", "The verdict on envelope or delivery.", "denied", words=VERDICTS),
    _header("policy", "Name of the policy that decided.", "Baseline"),
    _header("rule", "Name of the rule that decided.", "no restricted data after hours"),
    _header("issuer", "The issuer of the attestation that counted.", "Acme Trust"),
    Parameter(
        "indexFrom", "This entry and later.", "1000", limit=_limited("first", _position), type=int
    ),
    Parameter(
        "indexTo", "This entry and earlier.", "1999", limit=_limited("last", _position), type=int
    ),
    Parameter(
        "timeFrom",
        "At this time or later; RFC 3339 with its zone.",
        "2026-03-01T00:00:00Z",
        limit=_limited("since", _time),
        type=datetime,
    ),
    Parameter(
        "timeTo",
        "Before this time; RFC 3339 with its zone.",
        "2026-04-01T00:00:00Z",
        limit=_limited("until", _time),
        type=datetime,
    ),
    Parameter("scoreFrom", "This score or more.", "70", _compared("score__gte", _score), type=int),
    Parameter("scoreTo", "This score or less.", "84", _compared("score__lte", _score), type=int),
    Parameter(
        "reason",
        f"A text in the first {EntryBody.REASON_MAX_CHARS} characters of the reason, in upper or "
        "lower case. It reads every entry that the other filters leave: slow without another one.",
        "after hours",
        _compared("reason__icontains", _text),
        in_body=True,
    ),
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
_SCORES = ("scoreFrom", "scoreTo")
