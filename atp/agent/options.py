"""What a caller may say about one message: the options dict of the send methods, checked.

A misspelt option would quietly drop a demand for trust, so an unknown one is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from atp.errors import MalformedDocument, MalformedError, excerpt
from atp.trust.tokens import MESSAGE_MAX_LIFE_SECONDS
from atp.types import DataSensitivity, IPolicyContext, IProvenanceEntry, TrustLevel
from atp.wire.json_values import is_number, is_whole

__all__ = ["SendOptions", "parse_options"]

TIMEOUT_DEFAULT_MS: Final = 30_000


@dataclass(frozen=True, slots=True)
class SendOptions:
    """The options of one message; `None` leaves the default.

    `timeout`: milliseconds to wait for the answer (of a request) or the receipt (of anything
    else). `lifetime`: seconds until the message expires; a request's is its timeout, anything
    else's 24 hours. `requires_trust`, `required_capabilities`: what the other side must have.
    `sensitivity`, `allowed_tools`, `spawn_permission`, `max_lifespan_seconds`: the declared policy
    context. `notify`: later news on it are wanted. `provenance`: entries to send along.
    """

    timeout: float = TIMEOUT_DEFAULT_MS
    lifetime: int | None = None
    requires_trust: TrustLevel | None = None
    required_capabilities: tuple[str, ...] = ()
    sensitivity: DataSensitivity | None = None
    allowed_tools: tuple[str, ...] | None = None
    spawn_permission: bool | None = None
    max_lifespan_seconds: int | None = None
    notify: bool = False
    provenance: tuple[IProvenanceEntry, ...] = ()

    @property
    def timeout_seconds(self) -> float:
        return self.timeout / 1000

    def request_lifetime(self) -> int:
        """Seconds that a request lives: what its sender gave up on is not done later.

        `iat` is cut to the second, so one more is added for what the cut takes off.
        """
        waited = min(MESSAGE_MAX_LIFE_SECONDS, math.ceil(self.timeout_seconds) + 1)
        return waited if self.lifetime is None else self.lifetime

    def message_lifetime(self) -> int:
        """Seconds that anything else lives."""
        return MESSAGE_MAX_LIFE_SECONDS if self.lifetime is None else self.lifetime

    def with_sensitivity(self, sensitivity: DataSensitivity) -> SendOptions:
        """The same, of data that is as sensitive as said."""
        return replace(self, sensitivity=sensitivity)

    def policy_context(self, default: IPolicyContext | None) -> IPolicyContext | None:
        """The declared context: these options over the client's own."""
        said = (self.sensitivity, self.allowed_tools, self.spawn_permission)
        if all(value is None for value in (*said, self.max_lifespan_seconds)):
            return default
        base = default or IPolicyContext()
        return IPolicyContext(
            allowed_tools=_either(self.allowed_tools, base.allowed_tools),
            data_sensitivity=self.sensitivity or base.data_sensitivity,
            spawn_permission=_first(self.spawn_permission, base.spawn_permission),
            max_lifespan_seconds=_first(self.max_lifespan_seconds, base.max_lifespan_seconds),
        )


def parse_options(options: Mapping[str, Any] | SendOptions | None) -> SendOptions:
    """Check an options dict; raises `MalformedDocument` naming the option that is wrong."""
    if isinstance(options, SendOptions):
        return options
    given = dict(options or {})
    for name in given:
        if name not in _READERS:
            raise MalformedDocument(
                f"there is no option {excerpt(name)}; there are {', '.join(sorted(_READERS))}"
            )
    try:
        read = {name: _READERS[name](value) for name, value in given.items() if value is not None}
    except (ValueError, TypeError, MalformedError) as exc:
        raise MalformedDocument(f"an option has a value that it can't have: {exc}") from exc
    return SendOptions(**read)


def _milliseconds(value: Any) -> float:
    if not is_number(value) or not 0 < value <= MESSAGE_MAX_LIFE_SECONDS * 1000:
        raise ValueError("timeout is a number of milliseconds, at most 24 hours")
    return float(value)


def _seconds(value: Any) -> int:
    if not is_whole(value, least=1, most=MESSAGE_MAX_LIFE_SECONDS):
        raise ValueError("lifetime is a whole number of seconds, at most 24 hours")
    return value


def _count(value: Any) -> int:
    if not is_whole(value, least=1):
        raise ValueError("max_lifespan_seconds is a whole number above 0")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("notify and spawn_permission are true or false")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise ValueError("required_capabilities and allowed_tools are lists of strings")
    return tuple(value)


def _entries(value: Any) -> tuple[IProvenanceEntry, ...]:
    return tuple(
        item if isinstance(item, IProvenanceEntry) else IProvenanceEntry.from_wire(item)
        for item in value
    )


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "timeout": _milliseconds,
    "lifetime": _seconds,
    "requires_trust": TrustLevel,
    "required_capabilities": _texts,
    "sensitivity": DataSensitivity,
    "allowed_tools": _texts,
    "spawn_permission": _flag,
    "max_lifespan_seconds": _count,
    "notify": _flag,
    "provenance": _entries,
}
assert _READERS.keys() == {field.name for field in fields(SendOptions)}


def _either(said: tuple[str, ...] | None, default: list[str]) -> list[str]:
    return list(default if said is None else said)


def _first(said: Any, default: Any) -> Any:
    return default if said is None else said
