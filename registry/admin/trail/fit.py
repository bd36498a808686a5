"""Checks that an entry is unchanged: its columns, leaf, leaf hash and sections fit each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import orjson

from atp.log import leaves
from atp.wire.timestamps import format_microseconds
from registry.trail.actions import reason_in
from registry.trail.models import Entry, EntryBody, Erasure


def misfits(entry: Entry) -> list[str]:
    """Return in words what does not fit; empty if the entry is unchanged. Erased sections fit."""
    header = [(member, getattr(entry, name)) for name, member in leaves.HEADER.items()]
    said = [(m, format_microseconds(v) if m == "time" else v) for m, v in header]
    leaf, digests = bytes(entry.leaf), bytes(entry.body.digests)
    found = []
    if leaves.leaf_hash(leaf) != bytes(entry.leaf_hash):
        found.append("the leaf hash is not the hash of the leaf")
    digest = leaves.body_digest_in(leaf)
    if leaves.make_leaf(said, body_digest=digest) != leaf:
        found.append("the columns differ from the leaf")
    if leaves.section_digest(digests) != digest:
        found.append("the digests of the sections do not have the digest in the leaf")
    found += _section_misfits(entry.body, orjson.loads(digests))
    return found


def erased(body: EntryBody) -> list[str]:
    """Return the names of the sections that were erased."""
    digests = orjson.loads(bytes(body.digests))
    return [name for name in leaves.SECTIONS if name in digests and getattr(body, name) is None]


def _section_misfits(body: EntryBody, digests: Mapping[str, str]) -> Iterator[str]:
    explained = Erasure.objects.filter(position=body.pk).values_list("section", flat=True)
    for name in leaves.SECTIONS:
        content = getattr(body, name)
        if content is not None and leaves.section_digest(bytes(content)) != digests.get(name):
            yield f"the section {name} does not have its digest"
        if content is None and name in digests and name not in explained:
            yield f"the section {name} is missing, and no erasure names it"
    expected = None if body.shared is None else reason_in(body.read())
    if body.reason != expected:
        yield "the reason differs from that in the section shared"
