"""Whether a stored entry still is what was logged: columns, leaf, hash and body fit each other."""

from __future__ import annotations

from atp.log import leaves
from atp.wire.timestamps import format_microseconds
from registry.trail.models import Entry, EntryBody


def body_of(entry: Entry) -> EntryBody | None:
    """The entry's body; `None` where it was erased."""
    return getattr(entry, "body", None)


def misfits(entry: Entry) -> list[str]:
    """What doesn't fit, in words; nothing where all is well. An erased body fits."""
    header = [(member, getattr(entry, name)) for name, member in leaves.HEADER.items()]
    said = [(m, format_microseconds(v) if m == "time" else v) for m, v in header]
    leaf, body = bytes(entry.leaf), body_of(entry)
    found = []
    if leaves.leaf_hash(leaf) != bytes(entry.leaf_hash):
        found.append("the leaf's hash is not that of the leaf")
    digest = leaves.body_digest_in(leaf)
    if leaves.make_leaf(said, body_digest=digest) != leaf:
        found.append("the columns are not what the leaf says")
    if body is not None and leaves.body_digest(bytes(body.content)) != digest:
        found.append("the body is not the one that the leaf names")
    return found
