"""Each class has its own name, so that a search for a class finds one definition."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tests.sources import module_name, parsed, python_files

PACKAGES = ("atp", "registry", "messaging", "atp_site")

# Names that several classes have, each with the reason.
SHARED = {
    "Command": "Django finds the class of a management command by this name",
    "DatabaseWrapper": "Django finds the class of a database backend by this name",
    "Delivery": "the frame is named after its type on the wire; the row is the table of the admin",
    "Envelope": "the protocol's word for what is sent, and for the row that stores it",
}


def test_no_two_classes_share_a_name() -> None:
    """Nested classes such as Django's `Meta` belong to the class around them."""
    classes = _classes_of((module_name(path), parsed(path)) for path in python_files(*PACKAGES))
    assert {
        name: found for name, found in classes.items() if len(found) > 1
    }.keys() == SHARED.keys()


def test_it_finds_a_name_that_two_modules_share() -> None:
    one = ast.parse("class Ack:\n    class Meta: ...")
    other = ast.parse("if True:\n    class Ack:\n        class Meta: ...")
    assert _classes_of([("a", one), ("b", other)]) == {"Ack": ["a", "b"]}


def _classes_of(modules: Iterable[tuple[str, ast.Module]]) -> Mapping[str, Sequence[str]]:
    """Return by name of a class the modules that define it outside another class or function."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for module, tree in modules:
        for name in _outer_classes(tree):
            found[name].append(module)
    return found


def _outer_classes(node: ast.AST) -> Iterable[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield child.name
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _outer_classes(child)
