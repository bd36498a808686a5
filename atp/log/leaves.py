"""The exact bytes of an entry: its sections, its leaf, and the leaf's hash (RFC 8785, RFC 9162).

The leaf is the RFC 8785 form of the header's non-empty members and `body`. `body` is the digest of
the digests of the sections, so one section can be erased or withheld and the leaf still fits. Every
reader of an exported entry can build it again (docs/protocol.md#entries-of-the-trail).
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
    "SECTIONS",
    "VERSION",
    "body_digest_in",
    "canonical",
    "leaf_hash",
    "make_leaf",
    "section",
    "section_digest",
    "written",
    "written_digests",
]

VERSION = 1  # of the format: the member `v` of each leaf
LEAF_PREFIX = b"\x00"  # RFC 9162, section 2.1.1: tells a leaf from a node of the tree
SALT_BYTES = 16  # of a section, so that an erased section can't be guessed from its digest
SECTIONS = ("shared", "sender", "recipient", "personal")

# Attribute of an entry -> member of the leaf. Only the member `body` has no attribute.
HEADER = {
    "version": "v",
    "log": "log",
    "index": "index",
    "time": "time",
    "hub": "hub",
    "kind": "kind",
    "actor": "actor",
    "subject": "subject",
    "cause": "cause",
    "sender": "sender",
    "recipient": "recipient",
    "message_id": "messageId",
    "session": "session",
    "sensitivity": "sensitivity",
    "verdict": "verdict",
    "policy": "policy",
    "rule": "rule",
    "issuer": "issuer",
    "attestation": "attestation",
    "score": "score",
    "trace": "trace",
    "request_id": "requestId",
    "on_behalf_of": "onBehalfOf",
    "sender_organisation": "senderOrganisation",
    "recipient_organisation": "recipientOrganisation",
    "organisations": "organisations",
}


def canonical(value: Mapping[str, Any]) -> bytes:
    """Return the RFC 8785 form of a section. The hub's code made it, so it is valid JSON."""
    raw = serialize(value, plain=True)
    if not is_surely_canonical(raw):
        return serialize(orjson.loads(raw))  # parsed again, because it may hold a `Fragment`
    return raw


def section(members: Mapping[str, Any], salt: str) -> bytes:
    """Return the bytes of a section: its members and the member `salt`."""
    return canonical({**members, "salt": salt})


def section_digest(content: bytes) -> str:
    """Return the digest of a section's bytes."""
    return sha256_b64url(content)


def written_digests(digests: Mapping[str, str]) -> bytes:
    """Return the bytes whose digest is the member `body` of the leaf: digests by section."""
    members = ",".join([f'"{name}":"{digests[name]}"' for name in sorted(digests)])
    return f"{{{members}}}".encode("ascii")  # base64url needs no escapes


def written(value: Mapping[str, Any]) -> orjson.Fragment:
    """Serialise a value that many sections share once; the result can be put into each section."""
    return orjson.Fragment(canonical(value))


def make_leaf(header: Iterable[tuple[str, Any]], *, body_digest: str) -> bytes:
    """Return the leaf of a header of (member, value) pairs; empty values are left out."""
    members = {name: value for name, value in header if value or value == 0}
    members["body"] = body_digest
    return serialize(members, plain=True)  # text and small integers under names in ASCII


def leaf_hash(leaf: bytes) -> bytes:
    """Return the leaf hash of RFC 9162 section 2.1.1."""
    return sha256(LEAF_PREFIX + leaf).digest()


def body_digest_in(leaf: bytes) -> str:
    """Return the member `body` of a leaf, or "" if `leaf` is not a leaf."""
    try:
        members = parse(leaf)
    except ATPError:
        return ""
    found = members.get("body") if isinstance(members, dict) else None
    return found if isinstance(found, str) else ""
