"""The exact bytes of an entry: its body, its leaf, and the leaf's hash (RFC 8785, RFC 9162).

Leaf = RFC 8785 form of the header's members that say something, with `body`, the base64url SHA-256
of the body's RFC 8785 form. Anybody can rebuild it from an exported entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import orjson

from atp.errors import ATPError
from atp.wire.canonical import is_surely_canonical, parse, serialize, sha256_b64url

__all__ = [
    "HEADER",
    "LEAF_PREFIX",
    "SALT_BYTES",
    "body_digest",
    "body_digest_in",
    "canonical",
    "leaf_hash",
    "make_leaf",
    "written",
]

LEAF_PREFIX = b"\x00"  # RFC 9162, section 2.1.1: tells a leaf from a node of the tree
SALT_BYTES = 16  # of a body, so that nobody can guess an erased one from its hash

# Attribute of an entry -> member of the leaf. `body` is the one member that is no attribute.
HEADER = {
    "index": "index",
    "time": "time",
    "hub": "hub",
    "kind": "kind",
    "actor": "actor",
    "subject": "subject",
    "sender": "sender",
    "recipient": "recipient",
    "message_id": "messageId",
    "request_id": "requestId",
    "sensitivity": "sensitivity",
    "verdict": "verdict",
    "policy": "policy",
    "rule": "rule",
    "issuer": "issuer",
    "score": "score",
}


def canonical(value: Mapping[str, Any]) -> bytes:
    """The RFC 8785 form of an entry's body, which the hub's own code made of JSON values."""
    raw = serialize(value, plain=True)
    if not is_surely_canonical(raw):
        return serialize(orjson.loads(raw))  # read again, because a part may have been written
    return raw


def written(value: Mapping[str, Any]) -> orjson.Fragment:
    """A part that many bodies share, written once; it stands in a body like the value itself."""
    return orjson.Fragment(canonical(value))


def make_leaf(header: Iterable[tuple[str, Any]], *, body_digest: str) -> bytes:
    """The leaf of a header given as (member, value); what is empty is left out."""
    members = {name: value for name, value in header if value not in ("", None)}
    members["body"] = body_digest
    return serialize(members, plain=True)  # text and small integers under names in ASCII


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(LEAF_PREFIX + leaf).digest()


def body_digest(content: bytes) -> str:
    """How a leaf names a body, given by its RFC 8785 bytes."""
    return sha256_b64url(content)


def body_digest_in(leaf: bytes) -> str:
    """What a leaf says of its body; empty where it is no leaf."""
    try:
        members = parse(leaf)
    except ATPError:
        return ""
    found = members.get("body") if isinstance(members, dict) else None
    return found if isinstance(found, str) else ""
