"""RFC 8785: the published vectors and the number table, also through the strict parser."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from atp.errors import MalformedNumber
from atp.wire.canonical import parse, serialize

NAMES = ("arrays", "french", "structures", "unicode", "values", "weird")


@pytest.mark.parametrize("name", NAMES)
def test_it_writes_the_published_canonical_form(vectors: Path, name: str) -> None:
    folder = vectors / "jcs-rfc8785"
    value = json.loads((folder / "input" / f"{name}.json").read_text(encoding="utf-8"))
    expected = bytes.fromhex((folder / "outhex" / f"{name}.txt").read_text(encoding="ascii"))
    assert serialize(value) == expected


@pytest.mark.parametrize("name", [name for name in NAMES if name != "values"])
def test_it_reads_the_published_inputs_strictly(vectors: Path, name: str) -> None:
    folder = vectors / "jcs-rfc8785"
    expected = bytes.fromhex((folder / "outhex" / f"{name}.txt").read_text(encoding="ascii"))
    assert serialize(parse((folder / "input" / f"{name}.json").read_bytes())) == expected
    assert serialize(parse(expected)) == expected


def test_rejects_the_published_number_that_loses_a_digit(vectors: Path) -> None:
    """333333333.33333329 is written back as 333333333.3333333: two readers, two numbers."""
    text = (vectors / "jcs-rfc8785" / "input" / "values.json").read_bytes()
    with pytest.raises(MalformedNumber, match=r"333333333\.33333329"):
        parse(text)


def test_it_writes_numbers_as_appendix_b_of_rfc_8785_does(vectors: Path) -> None:
    table = json.loads((vectors / "rfc-small" / "rfc8785_appendix_b.json").read_text("utf-8"))
    rows = table["rfc8785_appendix_b_ieee754_hex_to_json"]
    assert len(rows) == 24
    for bits, text in rows.items():
        number = struct.unpack(">d", bytes.fromhex(bits))[0]
        if text.startswith("Error") or text in ("NaN", "Infinity", "-Infinity"):
            with pytest.raises(MalformedNumber):
                serialize(number)
        else:
            assert serialize(number) == text.encode("ascii"), bits
