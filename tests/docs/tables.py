"""Read tables and code blocks of the project's Markdown pages, for tests of the docs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.sources import ROOT

_RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
_CELL_EDGE = re.compile(r"(?<!\\)\|")
_FENCE = re.compile(r"^```(\w*)[ \t]*(.*)$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block; `note` is the comment line before it, such as `<!-- test: ... -->`."""

    language: str
    text: str
    line: int
    note: str


def page(name: str) -> str:
    """Return the text of a page, by its path from the root of the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def rows(name: str, *, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of all tables of a page with exactly these columns, in order."""
    found: list[dict[str, str]] = []
    lines = page(name).splitlines()
    for head, rule, start in zip(lines, lines[1:], range(2, len(lines) + 1), strict=False):
        if _RULE.fullmatch(rule.strip()) and tuple(_cells(head)) == columns:
            body = _while_table(lines[start:])
            found += [dict(zip(columns, _cells(line), strict=True)) for line in body]
    return found


def code(cell: str) -> str:
    """Return the parts of a cell that are marked as `code`."""
    return cell.strip("`")


def blocks(name: str) -> Iterator[Block]:
    """Return the fenced code blocks of a page."""
    lines = page(name).splitlines()
    opened: tuple[str, int, str] | None = None
    content: list[str] = []
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            before = next((text for text in reversed(lines[: number - 1]) if text.strip()), "")
            opened = (fence.group(1), number, before if before.startswith("<!--") else "")
        elif opened is not None and line.startswith("```"):
            yield Block(opened[0], "\n".join(content) + "\n", opened[1], opened[2])
            opened, content = None, []
        elif opened is not None:
            content.append(line)


def _cells(line: str) -> list[str]:
    parts = _CELL_EDGE.split(line.strip())
    return [part.strip().replace("\\|", "|") for part in parts[1:-1]]


def _while_table(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield line
