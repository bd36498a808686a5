"""Finds writes to rows of the registry that are not inside a `registry_change`.

The check reads the syntax tree. A write is a call of an ORM method that writes, or of a function
that writes and is not itself inside a change. A function whose every use is inside a change counts
as inside. Uses are told apart by the full name of what they use (`registry.agents.models.Agent`),
imports and re-exports included. Only a method that is called on a value whose class the tree does
not tell is looked up by its name alone.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

CHANGE = "registry.change.registry_change"
WRITES = {
    "save", "create", "bulk_create", "bulk_update", "get_or_create", "update_or_create",
    "create_superuser", "create_user", "execute", "executemany",
}  # fmt: skip
# Sets, dictionaries and hashes have these, too: only the result of a query counts.
QUERY_WRITES = {"update", "delete", "set", "add", "remove", "clear"}
QUERIES = {"objects", "filter", "exclude", "all", "tags", "open_at", "select_for_update"}
FUNCTIONS = {"registry.storage.bulk.insert_rows"}
DEEPEST = 10  # uses from a change down to the write
HOME = "registry"  # whose rows these are
UNKNOWN = "?."  # in front of a method of a value whose class is not known
NONE_OF_A_FUNCTION = "<module>"


@dataclass(frozen=True, slots=True)
class Use:
    """A function is named in a function; `guarded` where that is inside a change."""

    where: str
    used: str
    line: int
    guarded: bool


@dataclass(slots=True)
class Program:
    """The definitions of a set of modules, and the names that each module knows."""

    names: dict[str, dict[str, str]] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    bases: dict[str, list[str]] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        """The full name by which a thing is defined, behind all re-exports of it."""
        module, _, last = name.rpartition(".")
        further = self.names.get(module, {}).get(last, name)
        return name if further == name else self.resolve(further)

    def method(self, owner: str, name: str) -> str:
        """The method that objects of the class `owner` have; its own, or that of a base."""
        if f"{owner}.{name}" in self.functions:
            return f"{owner}.{name}"
        found = (self.method(base, name) for base in self.bases.get(owner, ()))
        return next((method for method in found if not method.startswith(UNKNOWN)), UNKNOWN + name)


class Writes:
    """The writes of rows in a set of modules, by full name, and the uses of each function.

    In a module that is not below `registry`, a write counts where a model of it is named in it.
    """

    def __init__(self, modules: Mapping[str, ast.Module]) -> None:
        program = _program_of(modules)
        self._writes: list[Use] = []
        self._uses: dict[str, list[Use]] = defaultdict(list)
        for module, tree in modules.items():
            walk = _Walk(program, module)
            walk.visit(tree)
            self._writes += walk.writes
            for use in walk.uses:
                self._uses[use.used].append(use)

    def unguarded(self, *, allowed: Iterable[str] = ()) -> dict[str, int]:
        """Functions that write rows while no change is open, and a line of each.

        A function of `allowed` may write, and what only such functions use may write, too.
        """
        exempt = frozenset(allowed)
        return {
            write.where: write.line
            for write in self._writes
            if not write.guarded and not self._is_inside(write.where, exempt)
        }

    def _is_inside(self, function: str, exempt: frozenset[str], *, depth: int = 0) -> bool:
        """Whether the function is exempt, or has uses and each of them is inside a change."""
        if function in exempt:
            return True
        unknown = UNKNOWN + function.rpartition(".")[2]
        found = [*self._uses.get(function, ()), *self._uses.get(unknown, ())]
        found = [use for use in found if use.where != function]
        if not found or depth > DEEPEST:
            return False
        return all(
            use.guarded or self._is_inside(use.where, exempt, depth=depth + 1) for use in found
        )


def _program_of(modules: Mapping[str, ast.Module]) -> Program:
    program = Program()
    for module, tree in modules.items():
        program.names[module] = dict(_imported(tree))
        _define(program, module, tree)
    for owner, bases in program.bases.items():
        program.bases[owner] = [program.resolve(base) for base in bases]
    return program


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Return the names that a module imports, each with its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.asname, a.name) for a in node.names if a.asname)


def _define(program: Program, scope: str, body: ast.AST) -> None:
    """Take down the functions and classes that are defined in `body`, and in them."""
    for node in ast.iter_child_nodes(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{scope}.{node.name}"
            program.names.setdefault(scope, {})[node.name] = name
            if isinstance(node, ast.ClassDef):
                names = program.names[scope]
                written = [_dotted(base) for base in node.bases]
                program.bases[name] = [_full(names, base) for base in written if base]
            else:
                program.functions.add(name)
            _define(program, name, node)
        else:
            _define(program, scope, node)


class _Walk(ast.NodeVisitor):
    """Walks a module and notes the uses of functions and the writes of rows."""

    def __init__(self, program: Program, module: str) -> None:
        self.uses: list[Use] = []
        self.writes: list[Use] = []
        self._program = program
        self._module = module
        self._is_home = module.partition(".")[0] == HOME
        self._scopes = [module]  # from the module down to the innermost function or class
        self._classes: list[str] = []
        self._guarded = False

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in (*node.decorator_list, node.args):
            self.visit(part)
        with self._within(node.name, guarded=False):
            for statement in node.body:
                self.visit(statement)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        with self._within(node.name, guarded=False):
            self._classes.append(self._scopes[-1])
            self.generic_visit(node)
            self._classes.pop()

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            self.visit(item)
        before = self._guarded
        self._guarded = before or any(map(self._opens_change, node.items))
        for statement in node.body:
            self.visit(statement)
        self._guarded = before

    def visit_Call(self, node: ast.Call) -> None:
        if self._writes(node):
            self.writes.append(self._use("", node))
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if name := self._full_name(node):
            self.uses.append(self._use(name, node))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = node.value.id if isinstance(node.value, ast.Name) else ""
        if name := self._full_name(node):
            self.uses.append(self._use(name, node))
        elif self._classes and owner in {"self", "cls"}:
            method = self._program.method(self._classes[-1], node.attr)
            self.uses.append(self._use(method, node))
        else:
            self.uses.append(self._use(UNKNOWN + node.attr, node))
        self.generic_visit(node)

    @contextmanager
    def _within(self, name: str, *, guarded: bool) -> Iterator[None]:
        before, self._guarded = self._guarded, guarded
        self._scopes.append(f"{self._scopes[-1]}.{name}")
        yield
        self._scopes.pop()
        self._guarded = before

    def _use(self, used: str, node: ast.expr) -> Use:
        alone = len(self._scopes) == 1
        where = f"{self._module}.{NONE_OF_A_FUNCTION}" if alone else self._scopes[-1]
        return Use(where, used, node.lineno, self._guarded)

    def _full_name(self, node: ast.expr) -> str:
        """Return the full name of the definition that an expression names; "" if none is known."""
        dotted = _dotted(node)
        for scope in reversed(self._scopes):
            names = self._program.names.get(scope, {})
            if dotted.partition(".")[0] in names and scope not in self._classes:
                return self._program.resolve(_full(names, dotted))
        return ""

    def _opens_change(self, item: ast.withitem) -> bool:
        call = item.context_expr
        return isinstance(call, ast.Call) and self._full_name(call.func) == CHANGE

    def _writes(self, call: ast.Call) -> bool:
        function = call.func
        if not isinstance(function, ast.Attribute):
            inserts = self._full_name(function) in FUNCTIONS
            return inserts and (self._is_home or any(map(self._names_model, call.args)))
        value = function.value
        writes = function.attr in WRITES or (function.attr in QUERY_WRITES and _is_query(value))
        return writes and (self._is_home or self._names_model(value))

    def _names_model(self, value: ast.expr) -> bool:
        """Whether an expression names something of the registry: a model, outside of it."""
        named = (self._full_name(node) for node in ast.walk(value) if isinstance(node, ast.Name))
        return any(name.startswith(f"{HOME}.") for name in named)


def _is_query(value: ast.expr) -> bool:
    """Whether the value is the result of a query, as far as its own expression says."""
    names = {node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute)}
    return bool(names & QUERIES)


def _dotted(node: ast.expr) -> str:
    """Return `a.b.c` as written; "" for an expression that is not only names."""
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return node.id if isinstance(node, ast.Name) else ""


def _full(names: Mapping[str, str], dotted: str) -> str:
    """Return the full name of a dotted name, by the names that its module knows."""
    first, dot, rest = dotted.partition(".")
    return f"{names.get(first, first)}{dot}{rest}"
