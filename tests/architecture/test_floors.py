"""Who may import whom within a package, and that no modules import each other in a ring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from fnmatch import fnmatchcase
from typing import NamedTuple

import pytest

from tests.sources import module_graph

# From top to bottom, as in docs/design/architecture.md#who-may-import-whom: a module may import
# from floors below its own and from its own room. Rooms that share a floor know nothing of each
# other. A room is a list of modules, folders and patterns; the longest that fits a module counts.
FLOORS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "atp": (
        ("atp", "examples"),
        ("client", "cli"),
        ("agent.attempts agent.courier agent.dispatch", "memory.transport", "transports"),
        ("envelope_shell",),
        ("agent", "memory"),
        ("transports.base", "judging", "log"),
        ("trust",),
        ("wire",),
        ("types",),
        ("wire.json_values",),
        ("errors",),
        ("error_base", "version"),
    ),
    "registry": (
        ("templatetags", "apps"),
        ("admin", "api", "management"),
        ("bootstrap", "rotation", "*.tasks"),
        ("bulk.actions", "exports.actions"),
        ("bulk.decisions", "impact"),
        ("attestations.actions",),
        ("agents.actions",),
        ("scores.actions", "attestations.status_list"),
        ("issuers.actions", "officers.first_officer", "policies.notices", "scores.inputs"),
        (
            "officers.accounts",
            "officers.actions",
            "policies.actions",
            "scores.offences",
            "trail.watching trail.erasing",
        ),
        ("change",),
        ("models", "trail.checks trail.triggers trail.losses trail.retention", "thumbprints"),
        ("trail.actions trail.reading", "hub.actions", "scores.registered"),
        ("*.querysets *.models issuers.standing officers.actor hub.secrets",),
        (
            "storage",
            "hooks",
            "hub",
            "officers",
            "policies",
            "token_hash",
            "trail",
            "*.events",
            "exports.files",
        ),
        ("plain_text",),
    ),
    "messaging": (
        ("apps", "management"),
        ("tasks", "process", "admin", "templatetags"),
        ("wire", "health"),
        ("node",),
        ("sessions",),
        ("judging",),
        ("mail",),
        ("periodic",),
        ("layer",),
        ("telemetry",),
        ("failpoints", "models"),
        ("health.models", "periodic.models"),
    ),
}


class Home(NamedTuple):
    """Where a module is: its floor, counted from the top, its room, and the name that fits it."""

    floor: int
    room: str
    name: str


NO_HOME = Home(-1, "", "")
TOPS = ("atp", "registry", "messaging", "atp_site")


@pytest.mark.parametrize("package", FLOORS)
def test_it_gives_each_module_a_floor(package: str) -> None:
    """A package's own file needs none while it neither imports nor is imported."""
    graph = module_graph(package)
    imported = frozenset().union(*graph.values())
    homeless = [m for m in graph if not list(_fitting(package, m)) and (graph[m] or m in imported)]
    assert homeless == []


@pytest.mark.parametrize("package", FLOORS)
def test_it_lists_no_floor_that_is_empty(package: str) -> None:
    names = {_home(package, module).name for module in module_graph(package)}
    rooms = [room for floor in FLOORS[package] for room in floor]
    assert {name for room in rooms for name in room.split()} - names == set()


@pytest.mark.parametrize("package", FLOORS)
def test_it_imports_nothing_from_a_floor_above(package: str) -> None:
    graph = module_graph(package)
    assert [
        f"{module} imports {target}"
        for module in graph
        for target in sorted(graph[module])
        if not _may_import(_home(package, module), _home(package, target))
    ] == []


def test_no_modules_import_each_other() -> None:
    """Models and their querysets do: Django makes the one out of the other."""
    rings = list(_rings(module_graph(*TOPS)))
    assert [ring for ring in rings if not _is_model_with_querysets(ring)] == []


def test_it_finds_rings() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"d2"}, "d2": set(), "e": {"e"}}
    assert list(_rings(graph)) == [{"a", "b", "c"}]


def _may_import(own: Home, other: Home) -> bool:
    return other.floor > own.floor or own.room == other.room


def _home(package: str, module: str) -> Home:
    return max(_fitting(package, module), key=lambda home: len(home.name), default=NO_HOME)


def _fitting(package: str, module: str) -> Iterator[Home]:
    within = module.removeprefix(f"{package}.")
    for number, floor in enumerate(FLOORS[package]):
        for room in floor:
            for name in room.split():
                if fnmatchcase(within, name) or within.startswith(f"{name}."):
                    yield Home(number, room, name)


def _rings(graph: Mapping[str, Set[str]]) -> Iterator[set[str]]:
    """Sets of modules of which each one imports, in one step or more, each other one."""
    reached = {module: _reached(graph, module) for module in graph}
    found: set[str] = set()
    for module in sorted(graph):
        ring = {other for other in reached[module] if module in reached[other]} | {module}
        if len(ring) > 1 and module not in found:
            found |= ring
            yield ring


def _reached(graph: Mapping[str, Set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    ahead = set(graph[start])
    while ahead:
        module = ahead.pop()
        if module not in reached:
            reached.add(module)
            ahead |= graph[module]
    return reached


def _is_model_with_querysets(ring: Set[str]) -> bool:
    concepts = {module.rpartition(".")[0] for module in ring}
    return len(concepts) == 1 and {m.rpartition(".")[2] for m in ring} == {"models", "querysets"}
