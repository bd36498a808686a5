"""The exact bytes of an entry: its body, its leaf, and the leaf's hash (RFC 8785, RFC 9162).

The leaf is the RFC 8785 form of the header's non-empty members and `body`, the base64url SHA-256 of
the body's RFC 8785 form. Every reader of an exported entry can build it again.
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
SALT_BYTES = 16  # of a body, so that an erased body can't be guessed from its hash

# Attribute of an entry -> member of the leaf. Only the member `body` has no attribute.
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
    """Return the RFC 8785 form of an entry's body. The hub's code made it, so it is valid JSON."""
    raw = serialize(value, plain=True)
    if not is_surely_canonical(raw):
        return serialize(orjson.loads(raw))  # parsed again, because it may hold a `Fragment`
    return raw


def written(value: Mapping[str, Any]) -> orjson.Fragment:
    """Serialise a value that many bodies share once; the result can be put into each body."""
    return orjson.Fragment(canonical(value))


def make_leaf(header: Iterable[tuple[str, Any]], *, body_digest: str) -> bytes:
    """Return the leaf of a header of (member, value) pairs; empty values are left out."""
    members = {name: value for name, value in header if value not in ("", None)}
    members["body"] = body_digest
    return serialize(members, plain=True)  # text and small integers under names in ASCII


def leaf_hash(leaf: bytes) -> bytes:
    """Return the leaf hash of RFC 9162 section 2.1.1."""
    return sha256(LEAF_PREFIX + leaf).digest()


def body_digest(content: bytes) -> str:
    """Return the member `body` of a leaf for a body's RFC 8785 bytes."""
    return sha256_b64url(content)


def body_digest_in(leaf: bytes) -> str:
    """Return the body digest that a leaf names, or "" if `leaf` is not a leaf."""
    try:
        members = parse(leaf)
    except ATPError:
        return ""
    found = members.get("body") if isinstance(members, dict) else None
    return found if isinstance(found, str) else ""
