"""docs/errors.md is the code table: nothing missing, nothing made up, nothing out of date."""

from __future__ import annotations

import re

import pytest

from atp import errors
from atp.errors import BY_CODE
from messaging.wire.close_codes import CLOSE_CODES, close_code
from registry.api.errors import status_of
from tests.docs.tables import code, rows

COLUMNS = ("code", "meaning", "what the caller does", "HTTP", "close")
ENDS_NO_CONNECTION = "-"

TABLE = {code(row["code"]): row for row in rows("docs/errors.md", columns=COLUMNS)}


def test_it_lists_every_code_once_and_no_other() -> None:
    assert [code(row["code"]) for row in rows("docs/errors.md", columns=COLUMNS)] == list(BY_CODE)


def test_the_tree_of_the_module_lists_every_code_and_no_other() -> None:
    branch = re.compile(r"── \w+ +(\w+)\.\*((?:[ \w,│]|\n(?!\n))+)")
    listed = {
        f"{family}.{name}"
        for family, names in branch.findall(errors.__doc__ or "")
        for name in re.findall(r"\w+", names)
    }
    assert listed == set(BY_CODE)


@pytest.mark.parametrize("name", BY_CODE)
def test_it_means_what_its_class_says(name: str) -> None:
    meaning = (BY_CODE[name].__doc__ or "").strip().splitlines()[0]
    assert TABLE[name]["meaning"] == meaning


@pytest.mark.parametrize("name", BY_CODE)
def test_it_says_what_to_do(name: str) -> None:
    assert len(TABLE[name]["what the caller does"]) > 5


@pytest.mark.parametrize("name", BY_CODE)
def test_it_gives_the_status_of_the_api(name: str) -> None:
    assert TABLE[name]["HTTP"] == str(status_of(name).value)


@pytest.mark.parametrize("name", BY_CODE)
def test_it_gives_the_close_code_of_the_socket(name: str) -> None:
    told = TABLE[name]["close"]
    assert told == str(close_code(name)) or (told == ENDS_NO_CONNECTION and name not in CLOSE_CODES)


def test_it_has_a_row_for_each_close_code() -> None:
    assert CLOSE_CODES.keys() <= TABLE.keys()
