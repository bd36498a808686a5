"""Every reference resolves: pages and headings that code and pages name, links, and file names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.tables import page
from tests.sources import PACKAGES, ROOT

FOLDERS = (*PACKAGES, "docs", "deploy", "templates", ".ci")
READ = (".py", ".md", ".toml", ".html", ".yaml")  # and the Makefile
OWN = Path(__file__).resolve()

# A page as a comment or a text names it; not the last part of a path that code puts together.
_PAGE = re.compile(r"(?<![\w./-])(?<!/ \")((?:\.\./)*(?:[\w-]+/)*[\w-]+\.md)(?:#([\w-]+))?")
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_CODE_PATH = re.compile(
    r"`((?:atp|registry|messaging|atp_site|templates|examples|benchmarks|tests)/[\w./*-]+?)"
    r"(?::[^`]*)?`"
)
_PLACES = ("docs/design/", "docs/first-change.md")  # pages that lead to files


def test_it_names_pages_and_headings_that_exist() -> None:
    assert not [
        f"{name}: {target}#{anchor}" if anchor else f"{name}: {target}"
        for name in _readable()
        if not name.endswith(".md")
        for target, anchor in _PAGE.findall(_text(name))
        if not _resolves(ROOT / target, anchor)
    ]


def test_it_links_to_pages_and_headings_that_exist() -> None:
    assert not [
        f"{name}: {target}#{anchor}"
        for name in _readable()
        if name.endswith(".md")
        for target, anchor in _LINK.findall(_FENCED.sub("", _text(name)))
        if not _resolves((ROOT / name).parent / target if target else ROOT / name, anchor)
    ]


def test_it_names_pages_in_pages_by_their_path() -> None:
    """`docs/x.md` from the root, or `x.md` for a page of the same folder."""
    assert not [
        f"{name}: {target}#{anchor}"
        for name in _readable()
        if name.endswith(".md")
        for target, anchor in _PAGE.findall(_FENCED.sub("", _text(name)))
        if not _resolves(ROOT / target, anchor)
        and not _resolves((ROOT / name).parent / target, anchor)
    ]


def test_it_leads_to_files_that_exist() -> None:
    assert not [
        f"{name}: {target}"
        for name in _readable()
        if name.startswith(_PLACES)
        for target in _CODE_PATH.findall(_text(name))
        if next(ROOT.glob(target), None) is None
    ]


def test_it_names_classes_and_functions_where_they_are() -> None:
    """The glossary says `Name` in `file`."""
    named = re.findall(r"`(\w+)` in `([\w/.]+\.py)`", page("docs/design/glossary.md"))
    assert len(named) > 30
    assert not [
        f"{name} in {target}"
        for name, target in named
        if not re.search(rf"^\s*(?:class|(?:async )?def) {name}\b", _text(target), re.MULTILINE)
    ]


def test_it_lists_the_terms_in_order() -> None:
    lines = page("docs/design/glossary.md").splitlines()
    terms = [line.split("|")[1].strip().lower() for line in lines if line.startswith("| ")][1:]
    assert terms == sorted(set(terms))


def test_it_has_a_line_for_each_folder_on_the_map() -> None:
    mapped = set(re.findall(r"^\| `([\w/]+)/` \|", page("docs/design/architecture.md"), re.M))
    packages = {
        name.removesuffix("/__init__.py")
        for name in _readable()
        if re.fullmatch(r"(?:atp|registry|messaging)/(?:\w+/)?__init__\.py", name)
    }
    assert not packages - mapped - _NOT_MAPPED


def test_it_indexes_every_decision() -> None:
    folder = ROOT / "docs" / "design" / "decisions"
    records = {path.name for path in folder.glob("[0-9]*.md")}
    index = page("docs/design/decisions/README.md")
    assert records == set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index))


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("## The score", "the-score"),
        ("### From an officer's page, to `atp`", "from-an-officers-page-to-atp"),
        ("# 0001: One fair writer on SQLite", "0001-one-fair-writer-on-sqlite"),
    ],
)
def test_it_makes_anchors_as_github_does(heading: str, anchor: str) -> None:
    assert _anchor(heading) == anchor


_NOT_MAPPED = {
    f"{app}/{folder}"
    for app in ("registry", "messaging")
    for folder in ("migrations", "templatetags")
}


@cache
def _readable() -> tuple[str, ...]:
    """Names of the project's pages and sources, found without git: a downloaded copy has none."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    found += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return tuple(
        str(path.relative_to(ROOT))
        for path in sorted(found)
        if (path.suffix in READ or path.name == "Makefile") and path != OWN
    )


@cache
def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _resolves(target: Path, anchor: str) -> bool:
    if not target.exists():
        return False
    return not anchor or anchor in set(_headings(os.path.relpath(target, ROOT)))


def _headings(name: str) -> Iterator[str]:
    for line in _FENCED.sub("", _text(os.path.normpath(name))).splitlines():
        if line.startswith("#"):
            yield _anchor(line)


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower())
    return kept.replace(" ", "-")
