"""The rules of the architecture: directions of imports, and sizes of files."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeGuard

from tests.sources import ROOT, imports, imports_of, module_name, parsed, python_files

MAY_IMPORT = {
    "atp": {"atp"},
    "registry": {"registry", "atp"},
    "messaging": {"messaging", "registry", "atp"},
    "atp_site": {"atp_site", "messaging", "registry", "atp"},
}
OURS = {*MAY_IMPORT, "tests", "benchmarks"}
SERVER_SIDE = {"django", "rest_framework", "channels", "celery", "drf_spectacular", "uvicorn"}
EDGES = {"consumers", "api", "admin", "tasks", "commands", "views"}
BEHIND_EDGES = {"actions", "models", "querysets"}
# Accounts are changed by Django's own commands and by `loaddata`: only signals tell of all of them.
ENTERS_ACCOUNTS = "registry.officers.watching"
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
MOST_LINES = 500
MOST_FUNCTION_LINES = 60
MOST_METHODS = 20  # private ones and class methods included
MORE_METHODS = {
    "ATPEnvelope": "a builder has a method for each part of an envelope that a caller sets",
    "InMemoryTransport": "a hub, as its callers see it: a method for each thing they do with it",
}
DATA = {"property", "cached_property", "setter"}  # what looks like a method and is read like data

OWN = [path for package in MAY_IMPORT for path in python_files(package)]


def test_it_imports_only_in_the_direction_of_the_arrows() -> None:
    def stray(module: str, target: str) -> bool:
        return _top(target) in OURS and _top(target) not in MAY_IMPORT[_top(module)]

    assert not _imports_that(stray)


def test_it_keeps_django_out_of_the_protocol() -> None:
    def stray(module: str, target: str) -> bool:
        return _top(module) == "atp" and _top(target) in SERVER_SIDE

    assert not _imports_that(stray)


def test_it_imports_no_edge_from_what_stands_behind_it() -> None:
    def stray(module: str, target: str) -> bool:
        return (
            bool(_layers(module) & BEHIND_EDGES)
            and _top(target) in MAY_IMPORT
            and bool(_layers(target) & EDGES)
        )

    assert not _imports_that(stray)


def test_it_hooks_no_rule_to_model_signals() -> None:
    def stray(module: str, target: str) -> bool:
        hooks = target.startswith("django.db.models.signals.") and not target.endswith("_migrate")
        return hooks and module != ENTERS_ACCOUNTS

    assert not _imports_that(stray)


def test_it_keeps_files_short_and_their_names_telling() -> None:
    long = {_place(path): size for path in python_files() if (size := _lines(path)) > MOST_LINES}
    vague = [_place(path) for path in python_files() if path.stem in VAGUE_NAMES]
    assert not long, "split it by concept"
    assert not vague, "name the concept"


def test_it_keeps_functions_and_classes_small() -> None:
    large = [f"{_place(path)}: {found}" for path in OWN for found in _large_parts(parsed(path))]
    assert not large


def test_it_excuses_no_class_that_is_small() -> None:
    classes = [part for path in OWN for part in ast.walk(parsed(path)) if _is_class(part)]
    large = {part.name for part in classes if _methods(part.body) > MOST_METHODS}
    assert MORE_METHODS.keys() <= large


def test_it_counts_private_and_decorated_methods() -> None:
    source = (
        "class A:\n"
        "    @property\n    def a(self): ...\n    @a.setter\n    def a(self, value): ...\n"
        "    def b(self): ...\n    async def _c(self): ...\n"
        "    @classmethod\n    def d(cls): ...\n    @overload(int)\n    def e(self): ...\n"
    )
    (found,) = ast.parse(source).body
    assert isinstance(found, ast.ClassDef)
    assert _methods(found.body) == 4


def test_it_opens_each_module_with_a_docstring() -> None:
    silent = [
        _place(path) for path in OWN if parsed(path).body and not ast.get_docstring(parsed(path))
    ]
    assert not silent


def test_it_has_each_docstring_once() -> None:
    """A merge by line can leave the same docstring twice: the second one is a string that does
    nothing."""
    twice = [
        f"{_place(path)}:{node.body[1].lineno}"
        for path in OWN
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if len(node.body) > 1 and ast.dump(node.body[0]) == ast.dump(node.body[1])
        if ast.get_docstring(node) is not None
    ]
    assert not twice


def test_it_reads_every_setting_that_it_has() -> None:
    settings = ROOT / "atp_site" / "settings.py"
    names = {
        target.id
        for node in parsed(settings).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.startswith("ATP_")
    }
    text = "\n".join(path.read_text(encoding="utf-8") for path in python_files())
    unread = [name for name in sorted(names) if len(re.findall(rf"\b{name}\b", text)) < 2]
    assert not unread, "a setting that no code reads is deleted"


def test_it_sees_every_form_of_import() -> None:
    source = (
        "import a.b, k\nfrom c.d import e\nfrom . import f\nfrom ..g import h\n"
        "def late():\n    from i import j as x\n"
    )
    found = {name for name, _ in imports_of(ast.parse(source), package=("p", "q"))}
    assert found == {"a.b", "k", "c.d", "c.d.e", "p.q", "p.q.f", "p.g", "p.g.h", "i", "i.j"}


def _imports_that(stray: Callable[[str, str], bool]) -> list[str]:
    return [
        f"{_place(path)}:{line} imports {target}"
        for path in OWN
        for target, line in imports(path)
        if stray(module_name(path), target)
    ]


def _large_parts(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines"
        elif _is_class(node) and _methods(node.body) > _most_methods(node.name):
            yield f"{node.name} has {_methods(node.body)} methods"


def _most_methods(name: str) -> float:
    return math.inf if name in MORE_METHODS else MOST_METHODS


def _is_class(node: ast.AST) -> TypeGuard[ast.ClassDef]:
    return isinstance(node, ast.ClassDef)


def _methods(body: Iterable[ast.stmt]) -> int:
    """How many methods a class has; properties are data to its callers."""
    return sum(
        isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
        and not any(ast.unparse(name).rpartition(".")[2] in DATA for name in part.decorator_list)
        for part in body
    )


def _top(module: str) -> str:
    return module.partition(".")[0]


def _layers(module: str) -> set[str]:
    """The words of a dotted name that say what kind of module it is."""
    return set(module.split(".")[1:])


def _place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
