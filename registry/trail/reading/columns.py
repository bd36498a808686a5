"""Where each member of an answer is stored. Everything that reads entries takes names from here."""

from __future__ import annotations

from collections.abc import Mapping

from atp.log import leaves

BODY = "body__"  # prefix of what is stored in the table of bodies
# Member of an answer -> look-ups of its value. Answers and CSV columns have this order.
FIELDS: Mapping[str, tuple[str, ...]] = {
    **{member: (attribute,) for attribute, member in leaves.HEADER.items()},
    **dict.fromkeys(("v", "log", "index"), ("position",)),
    "reason": (f"{BODY}reason",),
    "leafHash": ("leaf_hash",),
    "leaf": ("leaf",),
    "sections": (f"{BODY}digests",),
    "body": tuple(f"{BODY}{name}" for name in ("digests", *leaves.SECTIONS)),
}
NOT_LISTED = {"leaf", "sections", "body"}
LISTED = tuple(name for name in FIELDS if name not in NOT_LISTED)


def columns_of(fields: tuple[str, ...]) -> list[str]:
    """Return the look-ups of these members, in their order."""
    return [column for name in fields for column in FIELDS[name]]
