"""Rows of the registry are written inside a `registry_change`, and nowhere else."""

from __future__ import annotations

import ast

from tests.registry_writes import unguarded_writes
from tests.sources import imports, module_name, parsed, python_files

# What may write rows while no change is open, and why.
ALLOWED = {
    "registry.bootstrap.ensure_hub": "makes the row whose lock orders the changes",
    "registry.hub.actions.bump_epoch": "the epoch itself; called by registry_change alone",
    "registry.hub.models.seal_anew": "reseal_keys hands it on, inside its change",
    "registry.issuers.models.seal_anew": "reseal_keys hands it on, inside its change",
    "registry.policies.notices.record_notices": "counts what rules matched, after a batch",
    "registry.scores.actions.record_violations": "conduct, in the transaction of a batch",
    "registry.scores.actions.note_signatures": "conduct, in the transaction of a batch",
    "registry.scores.actions.add_good_traffic": "conduct, in the transaction of an ack",
    "registry.scores.actions.forget_old_traffic": "conduct that is too old to count",
    "registry.trail.actions.append": "the trail itself",
    "registry.trail.actions.count_refusals": "the counts of the trail",
    "registry.trail.actions.summarise_refusals": "the counts of the trail",
    "registry.trail.triggers.make_triggers": "a migration step: triggers, no rows",
    "registry.trail.triggers.missing_triggers": "reads which triggers there are",
    "registry.storage.round_trips.__init__": "how queries are sent; it writes nothing",
}
# `append` is called by registry_change. These write entries that belong to no change of a row of
# the registry: a person read the trail, and the traffic.
MAY_APPEND = {"registry.change", "registry.trail.actions"}
SAMPLE = """
def _helper():
    Agent.objects.create(id="a")

def _other():
    Agent.objects.create(id="b")

def action(actor):
    with registry_change(actor):
        _helper()
        row.save()

def page():
    _other()
"""


def test_it_writes_no_row_outside_a_change() -> None:
    modules = {module_name(path): parsed(path) for path in python_files("registry")}
    assert not unguarded_writes(modules, allowed=ALLOWED), "open a registry_change for it"


def test_it_allows_nothing_that_no_longer_writes() -> None:
    modules = {module_name(path): parsed(path) for path in python_files("registry")}
    unused = [name for name in ALLOWED if not _writes_without(name, modules)]
    assert not unused, "take it off the list"


def test_it_bumps_the_epoch_and_appends_to_the_trail_in_one_place() -> None:
    stray = [
        f"{module_name(path)} imports {target}"
        for path in python_files("registry", "messaging", "atp_site")
        for target, _ in imports(path)
        if (target == "registry.hub.actions.bump_epoch" and module_name(path) != "registry.change")
        or (
            target == "registry.trail.actions.append"
            and module_name(path).startswith("registry")
            and module_name(path) not in MAY_APPEND
        )
    ]
    assert not stray


def test_it_finds_a_write_that_is_in_no_change() -> None:
    assert unguarded_writes({"sample": ast.parse(SAMPLE)}) == {"sample._other": 6}


def _writes_without(name: str, modules: dict[str, ast.Module]) -> bool:
    """Whether something is found once `name` is off the list."""
    return bool(unguarded_writes(modules, allowed=ALLOWED.keys() - {name}))
