"""The closed JSON Schemas of the sections of each kind of entry (JSON Schema 2020-12).

One file a subject (`agent.json` for the kinds `agent.*`) names its kinds, their sections, and of
each section the members and which of them are required. A section that a kind does not name is
absent. `definitions.json` has what several use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
DEFINITIONS = "definitions"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SECTIONS = ("shared", "sender", "recipient", "personal")

# What `append` adds to the sections of all kinds.
_SALT = {"salt": {"$ref": "#/$defs/salt"}}
_OF_REQUESTS = {"requestId": {"type": "string"}, "onBehalfOf": {"type": "string"}}


@cache
def kinds() -> Mapping[str, Mapping[str, Any]]:
    """Return by kind the schemas of its sections, closed and with what `append` adds."""
    files = [path for path in sorted(FOLDER.glob("*.json")) if path.stem != DEFINITIONS]
    found: dict[str, dict[str, Any]] = {}
    for path in files:
        for kind, sections in json.loads(path.read_text(encoding="utf-8")).items():
            sections.setdefault("shared", {})
            found[kind] = {
                name: _closed(name, sections[name]) for name in SECTIONS if name in sections
            }
    return found


@cache
def definitions() -> Mapping[str, Any]:
    """Return the definitions that the sections refer to as `#/$defs/<name>`."""
    text = (FOLDER / f"{DEFINITIONS}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def schema_of(kind: str, section: str) -> Mapping[str, Any] | None:
    """Return the schema of a section; `None` if entries of this kind have no such section."""
    schema = kinds().get(kind, {}).get(section)
    if schema is None:
        return None
    return {"$schema": DIALECT, **schema, "$defs": definitions()}


def document() -> Mapping[str, Any]:
    """Return all schemas as one document: an entry's kind and its sections."""
    return {
        "$schema": DIALECT,
        "title": "The sections of an entry of the trail, by its kind",
        "type": "object",
        "required": ["kind", "body"],
        "properties": {"kind": {"enum": sorted(kinds())}, "body": {"type": "object"}},
        "allOf": [_branch(kind, sections) for kind, sections in sorted(kinds().items())],
        "$defs": definitions(),
    }


def _branch(kind: str, sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the document about one kind; an erased section is null."""
    return {
        "if": {"properties": {"kind": {"const": kind}}},
        "then": {
            "properties": {
                "body": {
                    "properties": {
                        name: {"oneOf": [schema, {"type": "null"}]}
                        for name, schema in sections.items()
                    },
                    "additionalProperties": False,
                }
            }
        },
    }


def _closed(section: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    added = {**_SALT, **(_OF_REQUESTS if section == "shared" else {})}
    return {
        **schema,
        "type": "object",
        "properties": {**schema.get("properties", {}), **added},
        "required": [*schema.get("required", ()), "salt"],
        "additionalProperties": False,
    }
