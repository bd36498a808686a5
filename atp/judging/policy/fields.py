"""The closed tables of fields, operators and actions that rules may use.

Forms for rules are built from these tables (docs/design/trust.md#policies). Some fields take an
argument after a colon: `payload:/data/amount` (a JSON Pointer, RFC 6901, into the envelope's
`payload`), `time.hour:Europe/Berlin` and `time.weekday:...` (an IANA zone; the default is UTC).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from atp.types import MessageType
from atp.wire.words import LEVELS, SCORED_ALGORITHMS, SENSITIVITIES

__all__ = [  # noqa: RUF022  # as sorted() has it
    "ACTIONS",
    "Action",
    "Argument",
    "FIELDS",
    "Field",
    "FieldKind",
    "OPERATORS",
    "Operand",
    "Operator",
    "WEEKDAYS",
    "operators_for",
]

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class FieldKind(StrEnum):
    """The type of a field's values. Each operator applies to certain kinds only."""

    TEXT = "text"
    CHOICE = "choice"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LEVEL = "level"
    SENSITIVITY = "sensitivity"
    TEXTS = "texts"
    HOUR = "hour"
    ANY = "any"


class Operand(StrEnum):
    """The shape of a condition's operand."""

    ONE = "one"
    MANY = "many"
    PAIR = "pair"
    FLAG = "flag"


class Argument(StrEnum):
    """The argument that a field takes after a colon."""

    NONE = ""
    POINTER = "pointer"
    ZONE = "zone"


@dataclass(frozen=True, slots=True)
class Field:
    """A value that a rule can test."""

    name: str
    label: str
    kind: FieldKind
    help_text: str
    choices: tuple[str, ...] = ()
    unit: str = ""
    argument: Argument = Argument.NONE

    @property
    def group(self) -> str:
        """The heading under which a form lists the field, such as `sender`."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Operator:
    """A comparison. `kinds` are the kinds of fields that it applies to."""

    name: str
    label: str
    operand: Operand
    kinds: frozenset[FieldKind]
    help_text: str


@dataclass(frozen=True, slots=True)
class Action:
    """The effect of a rule. `matches_unknown` is whether an unknown condition counts as a match."""

    name: str
    label: str
    help_text: str
    matches_unknown: bool


_MESSAGE_TYPES = tuple(kind.value for kind in MessageType)
_WORDS = frozenset({FieldKind.TEXT, FieldKind.CHOICE})
_RANKED = frozenset({FieldKind.LEVEL, FieldKind.SENSITIVITY})
_NUMBERS = frozenset({FieldKind.NUMBER, FieldKind.HOUR})
_EVERYTHING = frozenset(FieldKind)


def _agent_fields(who: str, title: str) -> Iterable[Field]:
    """Return the fields that both sender and recipient have."""
    yield Field(f"{who}.id", f"{title}: id", FieldKind.TEXT, f"The registered id of the {who}.")
    yield Field(
        f"{who}.level",
        f"{title}: level",
        FieldKind.LEVEL,
        f"The level that a valid attestation gives the {who}. The {who}'s own claim never counts.",
        choices=LEVELS,
    )
    yield Field(
        f"{who}.score",
        f"{title}: score",
        FieldKind.NUMBER,
        f"The trust score of the {who}, computed for this message.",
        unit="points, 0 to 100",
    )
    yield Field(
        f"{who}.capabilities",
        f"{title}: capabilities",
        FieldKind.TEXTS,
        f"The capabilities that the attestation of the {who} names.",
    )
    yield Field(
        f"{who}.organisation",
        f"{title}: organisation",
        FieldKind.TEXT,
        f"The organisation that the {who} is registered under.",
    )
    yield Field(f"{who}.tags", f"{title}: tags", FieldKind.TEXTS, f"The tags of the {who}.")
    yield Field(
        f"{who}.key_algorithm",
        f"{title}: key algorithm",
        FieldKind.CHOICE,
        f"The algorithm of the key that the {who} signs with.",
        choices=SCORED_ALGORITHMS,
    )


def _message_fields() -> Iterable[Field]:
    yield Field(
        "message.type",
        "Message: type",
        FieldKind.CHOICE,
        "Request, response, notification or broadcast. A broadcast is judged for each hearer.",
        choices=_MESSAGE_TYPES,
    )
    yield Field(
        "message.size",
        "Message: size",
        FieldKind.NUMBER,
        "The size of the whole envelope in its canonical form.",
        unit="bytes",
    )
    yield Field(
        "message.required_capabilities",
        "Message: required capabilities",
        FieldKind.TEXTS,
        "The capabilities that the request demands of its recipient.",
    )
    yield Field(
        "message.allowed_tools",
        "Message: allowed tools",
        FieldKind.TEXTS,
        "The tools that the envelope allows the recipient to use.",
    )
    yield Field(
        "message.age",
        "Message: age",
        FieldKind.NUMBER,
        "The time from signing to judgement.",
        unit="seconds",
    )
    yield Field(
        "message.lifespan_exceeded",
        "Message: lifespan exceeded",
        FieldKind.BOOLEAN,
        "Whether the envelope is older than its own maxLifespanSeconds; missing if it has none.",
    )
    yield Field(
        "data.sensitivity",
        "Data: sensitivity",
        FieldKind.SENSITIVITY,
        "The highest of: the declared sensitivity, the floors of sender and recipient, and those"
        " of the request which a response answers and of the chain of causes.",
        choices=SENSITIVITIES,
    )


def _time_fields() -> Iterable[Field]:
    yield Field(
        "time.hour",
        "Time: hour",
        FieldKind.HOUR,
        "The hour of the day when the message is judged. `between` includes the first hour and"
        " excludes the last. It may cross midnight: between 18 and 6 is the night.",
        unit="0 to 23",
        argument=Argument.ZONE,
    )
    yield Field(
        "time.weekday",
        "Time: weekday",
        FieldKind.CHOICE,
        "The day of the week when the message is judged.",
        choices=WEEKDAYS,
        argument=Argument.ZONE,
    )


def _context_fields() -> Iterable[Field]:
    yield Field(
        "context.messages_per_minute",
        "Context: messages a minute",
        FieldKind.NUMBER,
        "How many messages this sender sent in the last minute, this batch included.",
        unit="messages",
    )
    yield Field(
        "context.denials_per_hour",
        "Context: denials an hour",
        FieldKind.NUMBER,
        "How many messages of this sender were denied in the last hour.",
        unit="denials",
    )
    yield Field(
        "chain.lowest_level",
        "Chain: lowest level",
        FieldKind.LEVEL,
        "The lowest level among the senders of this message and of all its causes.",
        choices=LEVELS,
    )
    yield Field(
        "chain.lowest_score",
        "Chain: lowest score",
        FieldKind.NUMBER,
        "The lowest score among the senders of this message and of all its causes.",
        unit="points, 0 to 100",
    )
    yield Field(
        "chain.depth",
        "Chain: depth",
        FieldKind.NUMBER,
        "The number of messages in the chain of causes, this one included.",
        unit="messages",
    )
    yield Field(
        "payload",
        "Payload: value at a JSON Pointer",
        FieldKind.ANY,
        "A value in the payload, such as payload:/data/amount. It is compared with values of its"
        " own type only. The trail has its hash.",
        argument=Argument.POINTER,
    )


FIELDS: dict[str, Field] = {
    field.name: field
    for field in (
        *_agent_fields("sender", "Sender"),
        *_agent_fields("recipient", "Recipient"),
        *_message_fields(),
        *_time_fields(),
        *_context_fields(),
    )
}

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        Operator(
            "equals",
            "is",
            Operand.ONE,
            _EVERYTHING - {FieldKind.TEXTS},
            "The value is exactly this one.",
        ),
        Operator(
            "not_equals",
            "is not",
            Operand.ONE,
            _EVERYTHING - {FieldKind.TEXTS},
            "There is a value, and it is not this one.",
        ),
        Operator(
            "in",
            "is one of",
            Operand.MANY,
            _EVERYTHING - {FieldKind.BOOLEAN},
            "The value is in the list. If the field has several values, at least one is.",
        ),
        Operator(
            "not_in",
            "is none of",
            Operand.MANY,
            _EVERYTHING - {FieldKind.BOOLEAN},
            "The value is not in the list. If the field has several values, none is.",
        ),
        Operator(
            "less_than",
            "is below",
            Operand.ONE,
            _NUMBERS | _RANKED | {FieldKind.ANY},
            "The value is below this one. Levels and sensitivities compare by rank.",
        ),
        Operator(
            "at_most",
            "is at most",
            Operand.ONE,
            _NUMBERS | _RANKED | {FieldKind.ANY},
            "The value is below or equal. Levels and sensitivities compare by rank.",
        ),
        Operator(
            "at_least",
            "is at least",
            Operand.ONE,
            _NUMBERS | _RANKED | {FieldKind.ANY},
            "The value is above or equal. Levels and sensitivities compare by rank.",
        ),
        Operator(
            "greater_than",
            "is above",
            Operand.ONE,
            _NUMBERS | _RANKED | {FieldKind.ANY},
            "The value is above this one. Levels and sensitivities compare by rank.",
        ),
        Operator(
            "between",
            "is between",
            Operand.PAIR,
            _NUMBERS | _RANKED | {FieldKind.ANY},
            "Both ends are included. For hours, the last one is excluded, and the range may cross"
            " midnight.",
        ),
        Operator(
            "contains",
            "contains",
            Operand.ONE,
            frozenset({FieldKind.TEXTS, FieldKind.TEXT, FieldKind.ANY}),
            "The list has this element, or the text contains this text.",
        ),
        Operator(
            "contains_all",
            "contains all of",
            Operand.MANY,
            frozenset({FieldKind.TEXTS, FieldKind.ANY}),
            "The list has every one of these elements.",
        ),
        Operator(
            "starts_with",
            "starts with",
            Operand.ONE,
            frozenset({FieldKind.TEXT, FieldKind.ANY}),
            "The text begins with this one. Upper and lower case differ.",
        ),
        Operator(
            "matches",
            "matches the pattern",
            Operand.ONE,
            frozenset({FieldKind.TEXT, FieldKind.ANY}),
            "The whole text matches this RE2 regular expression. Add .* to match a part of it.",
        ),
        Operator(
            "exists",
            "is known",
            Operand.FLAG,
            _EVERYTHING,
            "True: there is a value. False: there is no value. The result is never unknown.",
        ),
    )
}

ACTIONS: dict[str, Action] = {
    action.name: action
    for action in (  # an earlier one beats a later one; log and notify decide nothing
        Action("deny", "Deny", "Refuses the message. Beats every other action.", True),
        Action("quarantine", "Quarantine", "Holds the message until an officer decides.", True),
        Action("escalate", "Escalate", "Holds the message until several officers agree.", True),
        Action("throttle", "Throttle", "Turns allow into throttled while over the limit.", True),
        Action("allow", "Allow", "Lets the message pass if no action above applies.", False),
        Action("log", "Log", "Adds a line to the operator's log. Decides nothing.", True),
        Action("notify", "Notify", "Tells the officers. Decides nothing.", True),
    )
}


def operators_for(field: Field) -> tuple[Operator, ...]:
    """Return the operators that apply to `field`, in the order of forms."""
    return tuple(operator for operator in OPERATORS.values() if field.kind in operator.kinds)
