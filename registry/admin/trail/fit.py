"""Checks that an entry is unchanged: its columns, leaf, leaf hash and body fit each other."""

from __future__ import annotations

from atp.log import leaves
from atp.wire.timestamps import format_microseconds
from registry.trail.models import Entry, EntryBody


def body_of(entry: Entry) -> EntryBody | None:
    """Return the entry's body; `None` if it was erased."""
    return getattr(entry, "body", None)


def misfits(entry: Entry) -> list[str]:
    """Return in words what does not fit; empty if the entry is unchanged. An erased body fits."""
    header = [(member, getattr(entry, name)) for name, member in leaves.HEADER.items()]
    said = [(m, format_microseconds(v) if m == "time" else v) for m, v in header]
    leaf, body = bytes(entry.leaf), body_of(entry)
    found = []
    if leaves.leaf_hash(leaf) != bytes(entry.leaf_hash):
        found.append("the leaf hash is not the hash of the leaf")
    digest = leaves.body_digest_in(leaf)
    if leaves.make_leaf(said, body_digest=digest) != leaf:
        found.append("the columns differ from the leaf")
    if body is not None and leaves.body_digest(bytes(body.content)) != digest:
        found.append("the body does not have the digest in the leaf")
    return found
