"""The project's own Python files, for tests that read source code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("atp", "registry", "messaging", "atp_site", "examples", "benchmarks", "tests")


def python_files(*packages: str) -> list[Path]:
    """Return every module of `packages` (of all packages if none is named), without migrations."""
    return sorted(
        path
        for package in packages or PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts
    )


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> list[tuple[str, int]]:
    """Return the imports anywhere in a file: full names and lines."""
    return list(imports_of(parsed(path), package=path.relative_to(ROOT).parent.parts))


def imports_of(tree: ast.Module, *, package: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Return the imports of `tree`, a module in `package`.

    `from a.b import c` counts as both `a.b` and `a.b.c`, because `c` may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            origin = ".".join((*base, *filter(None, [node.module])))
            yield origin, node.lineno
            yield from ((f"{origin}.{alias.name}", node.lineno) for alias in node.names)
