"""docs/design/architecture.md names every folder, and the same floors as `FLOORS`."""

from __future__ import annotations

import re

import pytest

from tests.architecture.test_floors import FLOORS, TOPS
from tests.sources import ROOT

MAP = (ROOT / "docs" / "design" / "architecture.md").read_text(encoding="utf-8")
OURS = re.compile(r"[a-z.][a-z_]*")  # no caches, no environments


def test_it_names_every_folder_of_the_packages() -> None:
    rows = re.findall(r"^\| ((?:`[\w./]+/`(?:, )?)+) \|", MAP, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([\w./]+)/`", row)}
    folders = {
        path.relative_to(ROOT).as_posix()
        for top in TOPS
        for path in (ROOT / top, *(ROOT / top).iterdir())
        if path.is_dir() and OURS.fullmatch(path.name)
    }
    assert folders - named == set()
    assert [name for name in named if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize("package", FLOORS)
def test_it_has_the_floors_of_the_tests(package: str) -> None:
    drawn = re.search(rf"^within {package}:\n((?:    .+\n)+)", MAP, re.MULTILINE)
    assert drawn is not None
    floors = [sorted(line.strip().split(", ")) for line in drawn[1].splitlines()]
    assert floors == [sorted(" ".join(floor).split()) for floor in FLOORS[package]]
