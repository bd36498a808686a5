"""The protocol's levels, sensitivities and message types, and the value types of the SDK.

Attributes are snake_case, members on the wire camelCase; `to_wire` and `from_wire` translate. All
values here are claims of a sender. The hub decides by its registry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Self, TypeVar

from atp.errors import IdentityInvalidId, MalformedEnvelope, excerpt
from atp.wire.json_values import find_typed

__all__ = [
    "AGENT_ID",
    "BROADCAST_TARGET",
    "DataSensitivity",
    "IATPConfig",
    "IATPResponse",
    "IAgentIdentity",
    "IAttestation",
    "IPolicyContext",
    "IProvenanceEntry",
    "ITransportConfig",
    "ITransportMessage",
    "IValidationResult",
    "MessageType",
    "TransportType",
    "TrustLevel",
    "check_agent_id",
    "is_agent_id",
]

# docs/protocol.md#names-and-numbers; use fullmatch
AGENT_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
BROADCAST_TARGET = "*"  # the target of a broadcast; not a valid agent id

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Enum)


class _Ranked(StrEnum):
    """A string enum whose members rise in the order of their definition."""

    rank: int  # the position in that order, from 0

    def __new__(cls, text: str) -> Self:
        member = str.__new__(cls, text)
        member._value_ = text
        member.rank = len(cls.__members__)
        return member

    def __lt__(self, other: str) -> bool:
        return self.rank < self._rank_of(other)

    def __le__(self, other: str) -> bool:
        return self.rank <= self._rank_of(other)

    def __gt__(self, other: str) -> bool:
        return self.rank > self._rank_of(other)

    def __ge__(self, other: str) -> bool:
        return self.rank >= self._rank_of(other)

    def _rank_of(self, other: object) -> int:
        # Raise instead of returning NotImplemented: Python would then compare plain strings, and
        # "verified" comes after "certified" in the alphabet.
        if isinstance(other, type(self)):
            return other.rank
        raise TypeError(f"{type(self).__name__} has no order with {type(other).__name__}")


class TrustLevel(_Ranked):
    """How far an issuer vouches for an agent, lowest first."""

    SANDBOXED = "sandboxed"
    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    CERTIFIED = "certified"


class DataSensitivity(_Ranked):
    """How much harm the data could do in the wrong hands, lowest first."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


class MessageType(StrEnum):
    """The types of messages. A failed request is answered by a response too."""

    REQUEST = "request"
    RESPONSE = "response"
    NOTIFICATION = "notification"
    BROADCAST = "broadcast"


class TransportType(StrEnum):
    """The types of transports."""

    IN_MEMORY = "in-memory"
    WEBSOCKET = "websocket"
    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class IAttestation:
    """The attestation that an agent claims to have. Times are RFC 3339 texts or `None`."""

    issuer: str
    level: TrustLevel
    issued_at: str | None = None
    expires_at: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON object for an envelope."""
        return _without_none(
            issuer=self.issuer,
            level=str(self.level),
            issuedAt=self.issued_at,
            expiresAt=self.expires_at,
        )

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> IAttestation:
        """Read the JSON object; raises `MalformedEnvelope`."""
        return cls(
            issuer=_text(value, "issuer"),
            level=_member(TrustLevel, value, "level"),
            issued_at=_optional_text(value, "issuedAt"),
            expires_at=_optional_text(value, "expiresAt"),
        )


@dataclass(frozen=True, slots=True)
class IAgentIdentity:
    """The identity that an agent claims. `attestation` may be `None`: the hub's registry has it."""

    id: str
    public_key: str = ""
    attestation: IAttestation | None = None
    capabilities: list[str] = field(default_factory=list)

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON object for an envelope."""
        attestation = self.attestation.to_wire() if self.attestation else None
        wire = _without_none(id=self.id, publicKey=self.public_key, attestation=attestation)
        return {**wire, "capabilities": list(self.capabilities or [])}

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> IAgentIdentity:
        """Read the JSON object; raises `MalformedEnvelope`."""
        attestation = value.get("attestation")
        return cls(
            id=_text(value, "id"),
            public_key=_optional_text(value, "publicKey") or "",
            attestation=None
            if attestation is None
            else IAttestation.from_wire(_object(attestation)),
            capabilities=_texts(value, "capabilities"),
        )


@dataclass(frozen=True, slots=True)
class IPolicyContext:
    """The sender's declarations about a message. They can only restrict it, never permit more."""

    allowed_tools: list[str] = field(default_factory=list)
    data_sensitivity: DataSensitivity | None = None
    spawn_permission: bool | None = None
    max_lifespan_seconds: int | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON object for an envelope."""
        wire = _without_none(
            dataSensitivity=str(self.data_sensitivity) if self.data_sensitivity else None,
            spawnPermission=self.spawn_permission,
            maxLifespanSeconds=self.max_lifespan_seconds,
        )
        return {**wire, "allowedTools": list(self.allowed_tools or [])}

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> IPolicyContext:
        """Read the JSON object; raises `MalformedEnvelope`."""
        sensitivity = value.get("dataSensitivity")
        return cls(
            allowed_tools=_texts(value, "allowedTools"),
            data_sensitivity=(
                None if sensitivity is None else _member(DataSensitivity, value, "dataSensitivity")
            ),
            spawn_permission=_typed(value, "spawnPermission", bool),
            max_lifespan_seconds=_typed(value, "maxLifespanSeconds", int),
        )


@dataclass(frozen=True, slots=True)
class IProvenanceEntry:
    """A provenance entry: which actor (`type`, such as "service", and `id`) did which `action`.

    `timestamp` is an RFC 3339 text.
    """

    type: str
    id: str
    timestamp: str
    action: str

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON object for an envelope."""
        return {
            "type": self.type,
            "id": self.id,
            "timestamp": self.timestamp,
            "action": self.action,
        }

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> IProvenanceEntry:
        """Read the JSON object; raises `MalformedEnvelope`."""
        return cls(**{name: _text(value, name) for name in ("type", "id", "timestamp", "action")})


@dataclass(frozen=True, slots=True)
class IATPConfig:
    """The arguments of an `ATPEnvelope`. `private_key` is not in the repr."""

    agent_identity: IAgentIdentity
    trust_level: TrustLevel
    policy_context: IPolicyContext | None = None
    payload: dict[str, Any] | None = None
    private_key: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class IValidationResult:
    """The result of `ATPEnvelope.validate`. `valid` is true if `errors` is empty."""

    valid: bool
    trust_score: int
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class IATPResponse:
    """The answer to a request: its `data`.

    `success` is true and `error` is `None`: a failure of the other side's handler is raised as
    `HandlerFailed`. A member `error` of the data is data.
    """

    success: bool
    trust_score: int
    data: Any = None
    error: str | None = None
    envelope: Any = None


@dataclass(frozen=True, slots=True)
class ITransportConfig:
    """The configuration of a transport: its type, its endpoint and further options."""

    type: TransportType
    endpoint: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ITransportMessage:
    """A message in the history of the in-memory transport. `timestamp` is an RFC 3339 text."""

    from_agent: str
    to_agent: str
    envelope: Any
    timestamp: str


def is_agent_id(text: object) -> bool:
    """Return whether `text` follows the grammar of agent ids."""
    return isinstance(text, str) and AGENT_ID.fullmatch(text) is not None


def check_agent_id(text: object) -> str:
    """Return `text` if it follows the grammar of agent ids, else raise `IdentityInvalidId`."""
    if isinstance(text, str) and AGENT_ID.fullmatch(text):
        return text
    raise IdentityInvalidId(
        f"{excerpt(text)} is not an agent id: use 1 to 128 of a-z, 0-9, '.', '_', '-', beginning"
        " with a letter or digit"
    )


def _without_none(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _object(value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise MalformedEnvelope(f"an object was expected, not {excerpt(value)}")


def _text(value: Mapping[str, Any], name: str) -> str:
    text = _object(value).get(name)
    if isinstance(text, str):
        return text
    raise MalformedEnvelope(f"{name} must be a string, not {excerpt(text)}")


def _optional_text(value: Mapping[str, Any], name: str) -> str | None:
    return None if _object(value).get(name) is None else _text(value, name)


def _texts(value: Mapping[str, Any], name: str) -> list[str]:
    items = _object(value).get(name)
    if items is None:
        return []
    if isinstance(items, list) and all(isinstance(item, str) for item in items):
        return items
    raise MalformedEnvelope(f"{name} must be a list of strings")


def _typed(value: Mapping[str, Any], name: str, kind: type[_T]) -> _T | None:
    return find_typed(_object(value), name, kind, error=MalformedEnvelope)


def _member(kind: type[_E], value: Mapping[str, Any], name: str) -> _E:
    text = _text(value, name)
    try:
        return kind(text)
    except ValueError as exc:
        raise MalformedEnvelope(f"{name} can't be {excerpt(text)}") from exc
