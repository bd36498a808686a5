"""The project's own Python files, for tests that read source code."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
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
            origin = _origin(node, package)
            yield origin, node.lineno
            yield from ((f"{origin}.{alias.name}", node.lineno) for alias in node.names)


def _origin(node: ast.ImportFrom, package: tuple[str, ...]) -> str:
    base = package[: len(package) + 1 - node.level] if node.level else ()
    return ".".join((*base, *filter(None, [node.module])))


@cache
def module_graph(*packages: str) -> dict[str, frozenset[str]]:
    """Return the modules of `packages` that each of them imports, anywhere in it.

    Imports for type checkers and those within functions count. `from a import b` counts as `a.b`
    where that is a module, else as `a`.
    """
    paths = {module_name(path): path for path in python_files(*packages)}
    return {name: _modules_imported(name, path, paths) for name, path in paths.items()}


def _modules_imported(name: str, path: Path, known: Collection[str]) -> frozenset[str]:
    package = path.relative_to(ROOT).parent.parts
    targets: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, package)
            names = {f"{origin}.{alias.name}" for alias in node.names}
            targets |= {target if target in known else origin for target in names}
    return frozenset(targets & set(known) - {name})
