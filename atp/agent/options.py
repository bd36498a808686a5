"""The options of the send methods, read from a dict and checked.

An unknown option is an error: a misspelt one would drop a demand for trust without a warning.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

from atp.errors import MalformedDocument, MalformedError, excerpt
from atp.trust.tokens import MESSAGE_MAX_LIFE_SECONDS, is_on_behalf_of, is_trace
from atp.types import DataSensitivity, IPolicyContext, IProvenanceEntry, TrustLevel
from atp.wire.json_values import is_number, is_whole

__all__ = ["SendOptions", "parse_options"]

TIMEOUT_DEFAULT_MS: Final = 30_000

Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class SendOptions:
    """The options of one message. `None` means the default.

    `timeout`: milliseconds to wait for the answer to a request, or for the receipt of any other
    message. `lifetime`: seconds until the message expires; the default is the timeout for a request
    and 24 hours for any other message. `requires_trust`, `required_capabilities`: the level and the
    capabilities that the recipient must have. `sensitivity`, `allowed_tools`, `spawn_permission`,
    `max_lifespan_seconds`: the declared policy context. `notify`: whether the sender wants notices
    of later events. `provenance`: entries that the signature covers. `message_id`: the id of the
    message, a UUID, so that sending it again can't make a second message. `on_behalf_of`: for whom
    the agent acts, up to 128 visible ASCII characters. `trace`: the trace id of W3C Trace Context,
    or a `traceparent`; the default is that of the current OpenTelemetry span, and for an answer
    that of its request.
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
    message_id: str | None = None
    on_behalf_of: str | None = None
    trace: str | None = None

    @property
    def timeout_seconds(self) -> float:
        """The timeout in seconds; `timeout` is in milliseconds."""
        return self.timeout / 1000

    def request_lifetime(self) -> int:
        """Return the lifetime of a request in seconds: it ends when its sender stops waiting.

        One second is added, because `iat` is rounded down to the second.
        """
        waited = min(MESSAGE_MAX_LIFE_SECONDS, math.ceil(self.timeout_seconds) + 1)
        return waited if self.lifetime is None else self.lifetime

    def message_lifetime(self) -> int:
        """Return the lifetime of any other message in seconds."""
        return MESSAGE_MAX_LIFE_SECONDS if self.lifetime is None else self.lifetime

    def with_sensitivity(self, sensitivity: DataSensitivity) -> SendOptions:
        """Return a copy with this sensitivity."""
        return replace(self, sensitivity=sensitivity)

    def policy_context(self, default: IPolicyContext | None) -> IPolicyContext | None:
        """Return the declared policy context: these options, then the client's `default`."""
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
    """Check an options dict; raises `MalformedDocument`, which names the wrong option."""
    if isinstance(options, SendOptions):
        return options
    given = dict(options or {})
    for name in given:
        if name not in _READERS:
            raise MalformedDocument(
                f"there is no option {excerpt(name)}; use one of: {', '.join(sorted(_READERS))}"
            )
    read = {name: _read(name, value) for name, value in given.items() if value is not None}
    return SendOptions(**read)


def _read(name: str, value: Any) -> Any:
    try:
        return _READERS[name](value)
    except (ValueError, TypeError, MalformedError) as exc:
        raise MalformedDocument(f"the option {name} has a wrong value: {exc}") from exc


def _word_of(words: type[Word]) -> Callable[[Any], Word]:
    def read(value: Any) -> Word:
        try:
            return words(value)
        except ValueError as exc:
            raise ValueError(f"{excerpt(value)} is none of {', '.join(words)}") from exc

    return read


def _milliseconds(value: Any) -> float:
    if not is_number(value) or not 0 < value <= MESSAGE_MAX_LIFE_SECONDS * 1000:
        raise ValueError("it must be a number of milliseconds, at most 24 hours")
    return float(value)


def _seconds(value: Any) -> int:
    if not is_whole(value, least=1, most=MESSAGE_MAX_LIFE_SECONDS):
        raise ValueError("it must be a whole number of seconds, at most 24 hours")
    return value


def _count(value: Any) -> int:
    if not is_whole(value, least=1):
        raise ValueError("it must be a whole number above 0")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("it must be true or false")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise ValueError("it must be a list of strings")
    return tuple(value)


def _entries(value: Any) -> tuple[IProvenanceEntry, ...]:
    return tuple(
        item if isinstance(item, IProvenanceEntry) else IProvenanceEntry.from_wire(item)
        for item in value
    )


def _on_behalf_of(value: Any) -> str:
    if not is_on_behalf_of(value):
        raise ValueError("it must be 1 to 128 visible ASCII characters")
    return str(value)


def _trace(value: Any) -> str:
    """Read a trace id, or a `traceparent` (W3C Trace Context, section 3.2)."""
    parts = value.split("-") if isinstance(value, str) else ()
    found = parts[1] if len(parts) >= 4 else value
    if not is_trace(found):
        raise ValueError("it must be 32 hexadecimal digits, or a traceparent")
    return str(found)


def _message_id(value: Any) -> str:
    text = str(value) if isinstance(value, uuid.UUID) else value
    if not isinstance(text, str) or str(uuid.UUID(text)) != text:
        raise ValueError("it must be a UUID in lower case, as str(uuid.uuid4()) gives")
    return text


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "timeout": _milliseconds,
    "lifetime": _seconds,
    "requires_trust": _word_of(TrustLevel),
    "required_capabilities": _texts,
    "sensitivity": _word_of(DataSensitivity),
    "allowed_tools": _texts,
    "spawn_permission": _flag,
    "max_lifespan_seconds": _count,
    "notify": _flag,
    "provenance": _entries,
    "message_id": _message_id,
    "on_behalf_of": _on_behalf_of,
    "trace": _trace,
}
assert _READERS.keys() == {field.name for field in fields(SendOptions)}


def _either(said: tuple[str, ...] | None, default: list[str]) -> list[str]:
    return list(default if said is None else said)


def _first(said: Any, default: Any) -> Any:
    return default if said is None else said
