"""Find writes to rows of the registry that are not inside a `registry_change`.

The check reads the syntax tree. A write is a call of an ORM method that writes, or of a function
that writes and is not itself inside a change. A function whose every use is inside a change counts
as inside.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

CHANGE = "registry_change"
WRITES = {
    "save", "create", "bulk_create", "bulk_update", "get_or_create", "update_or_create",
    "create_superuser", "create_user", "execute", "executemany",
}  # fmt: skip
# Sets, dictionaries and hashes have these methods too, so only results of queries count.
QUERY_WRITES = {"update", "delete", "set", "add", "remove", "clear"}
QUERIES = {"objects", "filter", "exclude", "all", "tags", "open_at", "select_for_update"}
FUNCTIONS = {"insert_rows"}
DEEPEST = 10  # calls from a change down to the write


@dataclass(frozen=True, slots=True)
class Use:
    """A call in a function: the name called, and whether it is inside a change."""

    module: str
    function: str
    called: str
    line: int
    guarded: bool

    @property
    def where(self) -> str:
        """The function that contains the call."""
        return f"{self.module}.{self.function}"


def uses_of(module: str, tree: ast.Module) -> Iterator[Use]:
    """Return every call in the functions of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _calls(module, node.name, node.body, guarded=False)


def unguarded_writes(
    modules: Mapping[str, ast.Module], *, allowed: Iterable[str] = ()
) -> dict[str, int]:
    """Return the functions that write rows outside a change, as `module.function` with a line each.

    A function in `allowed` may write; so may a function that only such functions call.
    """
    uses = [use for name, tree in modules.items() for use in uses_of(name, tree)]
    exempt = frozenset(allowed)
    return {
        use.where: use.line
        for use in uses
        if use.called.startswith("!")
        and not use.guarded
        and not _is_inside(use.module, use.function, uses, exempt)
    }


def _is_inside(
    module: str, function: str, uses: list[Use], exempt: frozenset[str], *, depth: int = 0
) -> bool:
    """Return whether the function is exempt, or is used and all its uses are inside a change."""
    if f"{module}.{function}" in exempt:
        return True
    calls = [
        use
        for use in uses
        if use.called == function
        and use.function != function
        and (use.module == module or not function.startswith("_"))
    ]
    if not calls or depth > DEEPEST:
        return False
    return all(
        call.guarded or _is_inside(call.module, call.function, uses, exempt, depth=depth + 1)
        for call in calls
    )


def _calls(module: str, function: str, body: Iterable[ast.AST], *, guarded: bool) -> Iterator[Use]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue  # found by itself
        if isinstance(node, ast.With) and any(map(_opens_change, node.items)):
            yield from _calls(module, function, node.body, guarded=True)
            continue
        if isinstance(node, ast.Call):
            for name in _names(node):
                yield Use(module, function, name, node.lineno, guarded)
        yield from _calls(module, function, ast.iter_child_nodes(node), guarded=guarded)


def _opens_change(item: ast.withitem) -> bool:
    call = item.context_expr
    return isinstance(call, ast.Call) and _last_name(call.func) == CHANGE


def _names(call: ast.Call) -> Iterator[str]:
    """Return the name called, with `!` in front if the call writes rows."""
    name = _last_name(call.func)
    if isinstance(call.func, ast.Attribute):
        if name in WRITES or (name in QUERY_WRITES and _is_query(call.func.value)):
            yield f"!{name}"
    elif name in FUNCTIONS:
        yield f"!{name}"
    yield name
    for argument in call.args:  # a function passed as an argument is used too
        if isinstance(argument, ast.Name):
            yield argument.id


def _is_query(value: ast.expr) -> bool:
    """Return whether the expression is the result of a query, by its own text."""
    names = {node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute)}
    return bool(names & QUERIES)


def _last_name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
