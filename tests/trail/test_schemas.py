"""The closed schemas of the sections of entries: one for each kind, and nothing beside it."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from registry.trail.kinds import Kind
from registry.trail.schemas import definitions, document, kinds, schema_of
from tests.entry_schemas import problems_in

SALT = "0" * 32
LOGIN = {"salt": SALT}


def test_it_has_a_schema_for_each_kind() -> None:
    assert kinds().keys() == {kind.value for kind in Kind}


def test_its_schemas_are_valid_and_closed() -> None:
    Draft202012Validator.check_schema(document())
    for kind, sections in kinds().items():
        for section in sections:
            schema = schema_of(kind, section)
            assert schema is not None
            Draft202012Validator.check_schema(schema)
            assert schema["additionalProperties"] is False
    open_ones = [name for name, one in definitions().items() if _is_open(one)]
    assert all("description" in definitions()[name] for name in open_ones), "say why it is open"


def test_it_refers_to_definitions_that_exist() -> None:
    named = set(_references(document()))
    assert named - {f"#/$defs/{name}" for name in definitions()} == set()


def test_it_takes_what_fits() -> None:
    assert list(problems_in("tag.created", {"shared": LOGIN})) == []


@pytest.mark.parametrize(
    "sections",
    [
        {"shared": {}},
        {"shared": {"salt": SALT, "surprise": 1}},
        {"shared": LOGIN, "sender": LOGIN},
    ],
)
def test_rejects_a_member_or_a_section_that_the_kind_does_not_have(sections: Any) -> None:
    assert list(problems_in("tag.created", sections))


def test_rejects_a_member_of_an_object_within() -> None:
    after = {"uid": "org_0000000000000000", "name": "a", "contact": "b"}
    shared = {"salt": SALT, "after": after}
    assert list(problems_in("organisation.created", {"shared": shared})) == []
    shared = {"salt": SALT, "after": {**after, "surprise": 1}}
    assert list(problems_in("organisation.created", {"shared": shared}))
    del shared["after"]["surprise"]  # type: ignore[attr-defined]  # it is a mapping
    assert not list(problems_in("organisation.created", {"shared": shared}))


def test_its_document_judges_a_whole_entry() -> None:
    validator = Draft202012Validator(document())
    assert validator.is_valid({"kind": "tag.created", "body": {"shared": LOGIN}})
    assert validator.is_valid({"kind": "tag.created", "body": {"shared": None}})  # erased
    assert not validator.is_valid({"kind": "tag.created", "body": {"shared": {"x": 1}}})
    assert not validator.is_valid({"kind": "tag.eaten", "body": {"shared": LOGIN}})


def _is_open(schema: Any) -> bool:
    return schema.get("type") == "object" and schema.get("additionalProperties") is not False


def _references(schema: Any) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)
