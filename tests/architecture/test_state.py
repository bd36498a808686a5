"""State of a process belongs to an object with an owner, not to a module."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.sources import ROOT, parsed, python_files

PACKAGES = ("atp", "registry", "messaging", "atp_site")
CONTAINERS = {"dict", "list", "set", "deque", "defaultdict", "Counter", "OrderedDict", "bytearray"}
WEAK = {"WeakKeyDictionary", "WeakValueDictionary", "WeakSet"}
LOCKS = {"Lock", "RLock", "Condition", "Semaphore", "Event", "local"}
CHANGING = {
    "add",
    "append",
    "appendleft",
    "clear",
    "discard",
    "extend",
    "insert",
    "pop",
    "popitem",
    "popleft",
    "remove",
    "setdefault",
    "update",
}
DISPLAYS = ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

ALLOWED: dict[str, str] = {}  # "path: name", and why a module may have it


def test_no_function_rebinds_a_name_of_its_module() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in python_files(*PACKAGES)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Global)
    ]
    assert found == []


def test_no_module_holds_state() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in python_files(*PACKAGES)
        for name in _state(parsed(path))
    }
    assert found == set(ALLOWED)


def test_it_finds_state() -> None:
    source = (
        "import threading\n"
        "TABLE = {1: 2}\nkept: dict[str, int] = {}\nseen = set()\nlock = threading.Lock()\n"
        "names = []\nnames.append(1)\nlater = deque()\ncounts = Counter()\n"
        "def f():\n    kept['a'] = TABLE[1]\n    seen.add(1)\n    counts['a'] += 1\n"
        "    later = []\n    del counts['b']\n    return names\n"
    )
    assert list(_state(ast.parse(source))) == ["kept", "seen", "lock", "counts"]


def _state(tree: ast.Module) -> Iterator[str]:
    """Names of the module for locks, and for containers that its functions change."""
    changed = {
        name
        for function in ast.walk(tree)
        if isinstance(function, FUNCTIONS)
        for node in ast.walk(function)
        for name in _changed(node)
    }
    for statement in tree.body:
        for name, value in _bound(statement):
            if _calls(value, LOCKS) or (name in changed and _is_container(value)):
                yield name


def _bound(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return
    for target in targets:
        if isinstance(target, ast.Name) and statement.value is not None:
            yield target.id, statement.value


def _changed(node: ast.AST) -> Iterator[str]:
    """The names whose contents `node` changes."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        owner = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = node.func.value
        if node.func.attr not in CHANGING:
            return
    else:
        return
    if isinstance(owner, ast.Name):
        yield owner.id


def _is_container(value: ast.expr) -> bool:
    return isinstance(value, DISPLAYS) or _calls(value, CONTAINERS | WEAK)


def _calls(value: ast.expr, names: set[str]) -> bool:
    if not isinstance(value, ast.Call):
        return False
    return ast.unparse(value.func).partition("[")[0].rpartition(".")[2] in names
