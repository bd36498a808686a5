"""docs/reliability.md names tests that exist, for every outage and every attack."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.tables import rows
from tests.sources import ROOT

OUTAGES = rows(
    "docs/reliability.md",
    columns=(
        "what fails", "agents", "officers and auditors", "until it is back, and how it heals",
        "test",
    ),
)  # fmt: skip
ATTACKS = rows("docs/reliability.md", columns=("attack", "what bounds it", "test"))


@pytest.mark.parametrize("row", OUTAGES + ATTACKS, ids=lambda row: next(iter(row.values()))[:60])
def test_it_names_tests_that_exist(row: dict[str, str]) -> None:
    named = re.findall(r"`([^`]+)::(test_\w+)`", row["test"])
    assert named
    assert " ".join(f"`{file}::{test}`" for file, test in named) == row["test"]
    for file, test in named:
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        kinds = ast.FunctionDef | ast.AsyncFunctionDef
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_it_has_all_of_them() -> None:
    assert (len(OUTAGES), len(ATTACKS)) == (20, 10)
