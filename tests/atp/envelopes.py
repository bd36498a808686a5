"""Valid envelopes, and all copies of a value with one change."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from atp.trust.envelope import new_document, sign_envelope
from atp.trust.keys import PrivateKey
from atp.types import (
    DataSensitivity,
    IAgentIdentity,
    IAttestation,
    IPolicyContext,
    IProvenanceEntry,
    MessageType,
    TrustLevel,
)

HUB = "hub-7f3a"
NOW = 1_800_000_000.25
ALICE = PrivateKey.generate()
DIGEST = "A" * 43
IDENTITY = IAgentIdentity(
    id="alice",
    public_key=ALICE.kid,
    attestation=IAttestation("authority", TrustLevel.CERTIFIED, "2026-01-01T00:00:00Z"),
    capabilities=["analysis"],
)
ENTRY = IProvenanceEntry("service", "checker", "2027-01-15T07:59:59.5Z", "validated input")


def document(**changes: Any) -> dict[str, Any]:
    """Return an unsigned request of alice with every optional part."""
    arguments: dict[str, Any] = {
        "identity": IDENTITY,
        "message_type": MessageType.REQUEST,
        "target": "bob",
        "data": {"task": "analyse", "figures": [1, 2.5, None, True], "note": "naïve"},
        "required_capabilities": ["data.analysis"],
        "requires_trust": TrustLevel.VERIFIED,
        "trust_level": TrustLevel.CERTIFIED,
        "policy_context": IPolicyContext(["search"], DataSensitivity.CONFIDENTIAL, False, 3600),
        "provenance": [ENTRY, IProvenanceEntry("task", "t-1", "2027-01-15T08:00:00Z", "made")],
        "notify": True,
    }
    return new_document(**{**arguments, **changes})


def signed(content: dict[str, Any] | None = None, **options: Any) -> bytes:
    """Return the bytes of an envelope that alice signed."""
    arguments = {"hub_id": HUB, "now": NOW, "lifetime_seconds": 30, **options}
    return sign_envelope(content or document(), arguments.pop("key", ALICE), **arguments)


def one_change(value: Any, *, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every value that differs from `value` in one member, with the path of the change."""
    for other in (None, True, 0, 7, 0.5, "x", "", [], {}, ["x"], {"x": 1}):
        if other != value or type(other) is not type(value):
            yield path, other
    if isinstance(value, str):
        yield path, value + "x"
        if value.swapcase() != value:
            yield path, value.swapcase()
    for name in _names(value):
        yield (*path, name), _without(value, name)
        for where, inner in one_change(value[name], path=(*path, name)):
            changed = copy.copy(value)
            changed[name] = inner
            yield where, changed
    if isinstance(value, dict):
        yield path, {**value, "unknown": 1}
    if isinstance(value, list):
        yield path, [*value, "x"]
        if len(value) > 1 and value[::-1] != value:
            yield path, value[::-1]


def _names(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []


def _without(value: Any, name: Any) -> Any:
    rest = copy.copy(value)
    del rest[name]
    return rest


def to_bytes(content: Any) -> bytes:
    return json.dumps({"ATP": content}, ensure_ascii=False).encode("utf-8")


def of_bytes(raw: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(raw)["ATP"]
    return content
