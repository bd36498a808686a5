"""The members of an envelope: which there are, what each may be, and how large all may be.

See docs/protocol.md#the-envelope.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from atp.errors import MalformedEnvelope, MalformedTooDeep, MalformedTooLarge
from atp.trust.capabilities import is_capability
from atp.trust.provenance import check_entries
from atp.types import BROADCAST_TARGET, DataSensitivity, MessageType, TrustLevel
from atp.wire.canonical import ENVELOPE_MAX_BYTES, ENVELOPE_MAX_DEPTH, is_plain
from atp.wire.json_values import is_whole
from atp.wire.schema import (
    Check,
    check_members,
    is_agent,
    is_anything,
    is_flag,
    is_label,
    is_positive,
    is_seconds,
    is_string,
    is_timestamp,
    list_of,
    matches,
    object_of,
    one_of,
)
from atp.wire.words import CODE_PATTERN

__all__ = ["VERSION", "check_document", "check_size", "inspect_document"]

VERSION = "1.0.0"  # the protocol's, in every envelope
DATA_MAX_DEPTH = ENVELOPE_MAX_DEPTH - 3  # `data` is inside envelope, `ATP` and `payload`
ERROR_TEXT_MAX_CHARS = 2048  # ours: what is shown to the caller of a failed request
LIST_MAX_ITEMS = 256  # ours: capabilities, tools; bounds the work for one envelope

_UUID: Final = matches(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REQUEST_ID: Final = matches(r"[\x21-\x7e]{1,128}")
_LABELS: Final = list_of(is_label, at_most=LIST_MAX_ITEMS)


def _is_target(value: object) -> bool:
    return value == BROADCAST_TARGET or is_agent(value)


def _is_error_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= ERROR_TEXT_MAX_CHARS


def _is_score(value: object) -> bool:
    return is_whole(value, least=0, most=100)


_ATTESTATION: Final = object_of(
    {"issuer": is_label, "level": one_of(TrustLevel)},
    {"issuedAt": is_timestamp, "expiresAt": is_timestamp},
    error=MalformedEnvelope,
    where="agentIdentity.attestation.",
)
_IDENTITY: Final = object_of(
    {"id": is_agent},
    {"publicKey": is_string, "attestation": _ATTESTATION, "capabilities": _LABELS},
    error=MalformedEnvelope,
    where="agentIdentity.",
)
_POLICY_CONTEXT: Final = object_of(
    {},
    {
        "allowedTools": _LABELS,
        "dataSensitivity": one_of(DataSensitivity),
        "spawnPermission": is_flag,
        "maxLifespanSeconds": is_positive,
    },
    error=MalformedEnvelope,
    where="policyContext.",
)
_ERROR: Final = object_of(
    {"code": matches(CODE_PATTERN)},
    {"detail": _is_error_text},
    error=MalformedEnvelope,
    where="payload.error.",
    is_closed=False,
)
_PAYLOAD: Final = object_of(
    {"messageType": one_of(MessageType), "targetAgent": _is_target},
    {
        "requestId": _REQUEST_ID,
        "requiredCapabilities": list_of(is_capability, at_most=LIST_MAX_ITEMS),
        "requiresTrust": one_of(TrustLevel),
        "salt": matches(r"[A-Za-z0-9_-]{22,86}"),
        "data": is_anything,
        "error": _ERROR,
        "notify": is_flag,
        "part": is_seconds,
        "final": is_flag,
    },
    error=MalformedEnvelope,
    where="payload.",
    is_closed=False,  # docs/protocol.md#the-envelope: unknown members of payload are kept
)
_REQUIRED: Final[Mapping[str, Check]] = {
    "version": lambda value: value == VERSION,
    "messageId": _UUID,
    "agentIdentity": _IDENTITY,
    "timestamp": is_timestamp,
    "payload": _PAYLOAD,
}
_OPTIONAL: Final[Mapping[str, Check]] = {
    "trustLevel": one_of(TrustLevel),
    "policyContext": _POLICY_CONTEXT,
    "provenance": check_entries,
    "trustScore": _is_score,
    "signature": is_string,  # checked by verification, which has an error for each fault
}


def check_document(document: Any) -> None:
    """Check the object inside `ATP`; raises `MalformedEnvelope`, which names the member."""
    check_members(document, _REQUIRED, _OPTIONAL, error=MalformedEnvelope)
    _check_message_type(document["payload"])


def inspect_document(document: Mapping[str, Any]) -> bool:
    """Return whether a document of this process is plain; raises a `MalformedError` if not JSON."""
    try:
        return is_plain(document, max_depth=ENVELOPE_MAX_DEPTH - 1)
    except MalformedTooDeep as found:
        problem = MalformedTooDeep(
            f"objects and arrays nest at most {ENVELOPE_MAX_DEPTH} deep in an envelope, so `data`"
            f" at most {DATA_MAX_DEPTH} deep; it nests deeper at {ascii(found.pointer)[1:-1]}"
        )
        problem.pointer = found.pointer
        raise problem from None


def check_size(canonical: bytes) -> None:
    """Raise `MalformedTooLarge` for the text of an envelope beyond `ENVELOPE_MAX_BYTES`."""
    if len(canonical) > ENVELOPE_MAX_BYTES:
        raise MalformedTooLarge(
            f"the envelope has {len(canonical)} bytes; at most {ENVELOPE_MAX_BYTES}"
            f" ({ENVELOPE_MAX_BYTES // 1024} KiB) are allowed, all members together"
        )


def _check_message_type(payload: Mapping[str, Any]) -> None:
    kind, target = payload["messageType"], payload["targetAgent"]
    if (kind == MessageType.BROADCAST) != (target == BROADCAST_TARGET):
        raise MalformedEnvelope("a broadcast must have the target *, and no other message may")
    if kind in (MessageType.REQUEST, MessageType.RESPONSE) and "requestId" not in payload:
        raise MalformedEnvelope(f"a {kind} must have a requestId")
    if "error" in payload and kind != MessageType.RESPONSE:
        raise MalformedEnvelope(f"a {kind} can't have an error; only a response can")
