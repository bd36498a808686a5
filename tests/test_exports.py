"""The exports of `atp`: each exists, they are in order, and none is by accident."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import atp
from tests.sources import ROOT, module_name, parsed, python_files


def test_it_exports_sorted_names_that_exist() -> None:
    assert list(atp.__all__) == sorted(atp.__all__)
    assert len(set(atp.__all__)) == len(atp.__all__)
    missing = [name for name in atp.__all__ if not hasattr(atp, name)]
    assert not missing


def test_it_does_nothing_but_export() -> None:
    kinds = {type(node) for node in parsed(ROOT / "atp" / "__init__.py").body}
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}, "atp/__init__.py is the public API only"


def test_it_declares_what_each_module_exports() -> None:
    faults = []
    for path in python_files("atp"):
        if not path.stem.startswith("_"):
            module = importlib.import_module(module_name(path))
            faults += [f"{module.__name__}: {fault}" for fault in _export_faults(module)]
    assert not faults


def test_it_imports_without_django() -> None:
    """The SDK works where no Django is: importing it loads none of the server side."""
    script = (
        "import sys, atp\n"
        "found = sorted({'django', 'channels', 'celery', 'rest_framework'} & set(sys.modules))\n"
        "sys.exit(', '.join(found) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def _export_faults(module: ModuleType) -> Iterator[str]:
    names = getattr(module, "__all__", None)
    if names is None:
        yield "no __all__"
        return
    if list(names) != sorted(names):
        yield "__all__ is not sorted"
    yield from (f"no {name}" for name in names if not hasattr(module, name))
