"""Where each member of an answer is stored. Everything that reads entries takes names from here."""

from __future__ import annotations

from collections.abc import Mapping

from atp.log import leaves

# Member of an answer -> look-up of its value. Answers and CSV columns have this order.
BODY = "body__"  # prefix of what is stored in the table of bodies
FIELDS: Mapping[str, str] = {
    **{member: attribute for attribute, member in leaves.HEADER.items()},
    "reason": f"{BODY}reason",
    "leafHash": "leaf_hash",
    "leaf": "leaf",
    "body": f"{BODY}content",
}
LISTED = tuple(name for name in FIELDS if name not in {"leaf", "body"})


def in_header(fields: tuple[str, ...]) -> dict[str, str]:
    """Return the members that are columns of the entry, with their columns."""
    return {name: FIELDS[name] for name in fields if not FIELDS[name].startswith(BODY)}


def in_body(fields: tuple[str, ...]) -> dict[str, str]:
    """Return the members that are columns of the body, with their columns."""
    found = {name: FIELDS[name] for name in fields if FIELDS[name].startswith(BODY)}
    return {name: column.removeprefix(BODY) for name, column in found.items()}
