"""Properties of canonical JSON: serializers agree, and parsing gives the value back."""

from __future__ import annotations

import json
from typing import Any

import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from atp.errors import ATPError, MalformedError
from atp.wire.canonical import is_plain, parse, parse_noted, serialize
from tests.atp.json_values import values


@given(values())
def test_it_writes_what_the_reference_writes(value: Any) -> None:
    assert serialize(value) == rfc8785.dumps(value)


@given(values(with_floats=False))
def test_it_takes_the_short_cut_only_where_it_is_exact(value: Any) -> None:
    if is_plain(value):
        assert serialize(value, plain=True) == rfc8785.dumps(value)


@given(values())
def test_it_reads_back_what_it_wrote(value: Any) -> None:
    written = serialize(value)
    parsed = parse_noted(written)
    assert parsed.value == value
    assert serialize(parsed.value) == written
    assert parsed.plain is is_plain(parsed.value)
    if parsed.plain:
        assert serialize(parsed.value, plain=True) == written


@given(values(), st.booleans(), st.sampled_from([None, 1]))
def test_it_comes_to_the_same_value_however_it_was_written(
    value: Any, ensure_ascii: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
    assert serialize(parse(text)) == serialize(value)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_rejects_noise_with_a_typed_error(noise: bytes | str) -> None:
    try:
        parsed = parse_noted(noise)
    except MalformedError:
        return
    assert parse(serialize(parsed.value)) == parsed.value


@given(values(), st.data())
def test_rejects_or_reads_text_with_one_byte_changed(value: Any, data: st.DataObject) -> None:
    written = bytearray(serialize(value))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_noted(bytes(written))
    except ATPError:
        return
    again = serialize(parsed.value)
    assert parse(again) == parsed.value
    if parsed.canonical is not None:
        assert again == bytes(written) == rfc8785.dumps(parsed.value)
