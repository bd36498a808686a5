"""docs/security.md names tests that exist, and says so where there is none."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.tables import rows
from tests.sources import ROOT, imports, python_files

THREATS = rows("docs/security.md", columns=("threat", "answer", "test"))
NOT_SHOWN = "not shown yet"
UNSHOWN_MOST = 1  # may fall, and not rise
TESTS = ROOT / "tests"
CLIENTS = (
    "httpx", "requests", "aiohttp", "urllib.request", "http.client", "websockets",
    "atp.transports", "atp.client", "smtplib", "ftplib",
)  # fmt: skip


@pytest.mark.parametrize("row", THREATS, ids=[row["threat"][:60] for row in THREATS])
def test_it_names_tests_that_exist(row: dict[str, str]) -> None:
    if row["test"] == NOT_SHOWN:
        return
    named = re.findall(r"`([^`]+)::(test_\w+)`", row["test"])
    assert " ".join(f"`{file}::{test}`" for file, test in named) == row["test"]
    missing = [f"{file}::{test}" for file, test in named if test not in _tests_of(TESTS / file)]
    assert not missing


def test_it_leaves_no_more_threats_without_a_test_than_before() -> None:
    unshown = [row["threat"] for row in THREATS if row["test"] == NOT_SHOWN]
    assert len(unshown) <= UNSHOWN_MOST, unshown


def test_it_has_a_server_that_fetches_nothing() -> None:
    """Without a client there, nobody can make the hub call an address of theirs (SSRF)."""
    fetching = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for package in ("registry", "messaging", "atp_site")
        for path in python_files(package)
        for target, line in imports(path)
        if target.startswith(CLIENTS)
    ]
    assert not fetching


@cache
def _tests_of(path: Path) -> frozenset[str]:
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))
