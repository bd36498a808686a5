"""Validates the entries that tests append against the closed schemas of their kinds."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from registry.trail.models import Entry
from registry.trail.schemas import kinds, schema_of


def size_of_log() -> int:
    """Return how many entries the log has."""
    newest = Entry.objects.order_by("-position").values_list("position", flat=True).first()
    return 0 if newest is None else newest + 1


def problems_of(first: int, last: int, *, besides: Container[str] = ()) -> list[str]:
    """Return what is wrong with the entries from `first` up to, and without, `last`.

    Entries about a subject in `besides` are not looked at.
    """
    wanted = [kind for kind in kinds() if kind.partition(".")[0] not in besides]
    rows = Entry.objects.filter(position__gte=first, position__lt=last, kind__in=wanted)
    return [
        f"entry {row.position} {row.kind}: {problem}"
        for row in rows.select_related("body").order_by("position")
        for problem in problems_in(row.kind, sections_of(row))
    ]


def problems_in(kind: str, sections: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, said in sections.items():
        validator = _validator(kind, name)
        if validator is None:
            yield f"there is no section {name}"
        else:
            yield from (f"{name}: {error.message[:300]}" for error in validator.iter_errors(said))


def sections_of(row: Entry) -> dict[str, Any]:
    names = json.loads(bytes(row.body.digests))
    return {name: row.body.read(name) for name in names}


@cache
def _validator(kind: str, section: str) -> Draft202012Validator | None:
    schema = schema_of(kind, section)
    return None if schema is None else Draft202012Validator(schema)
