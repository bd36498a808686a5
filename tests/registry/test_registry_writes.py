"""Rows of the registry are written inside a `registry_change`, and nowhere else."""

from __future__ import annotations

import ast

import pytest

from tests.registry_writes import Writes
from tests.sources import imports, module_name, parsed, python_files

# What may write rows while no change is open, and why.
ALLOWED = {
    "registry.bootstrap.ensure_hub": "makes the row whose lock orders the changes",
    "registry.hub.actions.bump_epoch": "the epoch itself; called by registry_change alone",
    "registry.policies.notices.record_notices": "counts what rules matched, after a batch",
    "registry.scores.actions.record_violations": "conduct, in the transaction of a batch",
    "registry.scores.actions.note_signatures": "conduct, in the transaction of a batch",
    "registry.scores.actions.add_good_traffic": "conduct, in the transaction of an ack",
    "registry.scores.actions.forget_old_traffic": "conduct that is too old to count",
    "registry.trail.actions.append": "the trail itself",
    "registry.trail.actions.count_refusals": "the counts of the trail",
    "registry.trail.actions.summarise_refusals": "the counts of the trail",
    "registry.trail.triggers.make_triggers": "a migration step: triggers, no rows",
    "registry.trail.losses.losses": "reads which sections are missing",
    "registry.trail.triggers.missing_triggers": "reads which triggers there are",
    "registry.storage.bulk.insert_rows": "how rows are inserted; each call of it is a write",
    "registry.storage.round_trips.Asked.__init__": "how queries are sent; it writes nothing",
}
# `append` is called by registry_change. These write entries that belong to no change of a row of
# the registry: a person read the trail, and the traffic.
MAY_APPEND = {"registry.change", "registry.trail.actions"}
CHANGES = """
from registry.agents.models import Agent
from registry.change import registry_change as opened
from registry.sample import helpers
from registry.sample.helpers import make

def _helper():
    Agent.objects.create(id="a")

def _other():
    Agent.objects.create(id="b")

def action(actor):
    with opened(actor):
        _helper()
        make()
        helpers.hand_on(remake)
        row.save()

def remake():
    Agent.objects.update(id="c")

def page():
    _other()
"""
HELPERS = """
from registry.agents.models import Agent

def make():
    Agent.objects.create(id="d")

def hand_on(act):
    act()
"""
# The same names again, and none of them in a change.
NAMESAKES = """
from registry.agents.models import Agent
from registry.sample import registry_change

def make():
    Agent.objects.create(id="e")

def remake():
    Agent.objects.create(id="f")

class Page:
    def _helper(self):
        self.row.save()

    def show(self):
        self._helper()

def pretend(actor):
    with registry_change(actor):
        Agent.objects.create(id="g")
"""
ABOVE = """
from messaging.models import Envelope
from registry.agents.models import Agent
from registry.sample.helpers import make

def store():
    Envelope.objects.create(id=1)

def stray():
    Agent.objects.filter(id=1).update(name="h")

def call():
    make()
"""


@pytest.fixture(scope="module")
def writes() -> Writes:
    files = python_files("registry", "messaging", "atp_site")
    return Writes({module_name(path): parsed(path) for path in files})


def test_it_writes_no_row_outside_a_change(writes: Writes) -> None:
    assert not writes.unguarded(allowed=ALLOWED), "open a registry_change for it"


def test_it_allows_nothing_that_no_longer_writes(writes: Writes) -> None:
    unused = [name for name in ALLOWED if not writes.unguarded(allowed=ALLOWED.keys() - {name})]
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
    assert found_in(**{"registry.sample": CHANGES, "registry.sample.helpers": HELPERS}) == {
        "registry.sample._other"
    }


def test_it_tells_functions_of_one_name_apart() -> None:
    """What is inside a change is the namesake of each; these are not."""
    modules = {
        "registry.sample": CHANGES,
        "registry.sample.helpers": HELPERS,
        "registry.namesakes": NAMESAKES,
    }
    strays = ("make", "remake", "Page._helper", "pretend")
    assert found_in(**modules) == {
        "registry.sample._other",
        *(f"registry.namesakes.{name}" for name in strays),
    }


def test_it_finds_what_the_apps_above_write() -> None:
    """Their own rows are theirs. A call of a function of the registry makes that one a stray."""
    modules = {
        "registry.sample": CHANGES,
        "registry.sample.helpers": HELPERS,
        "messaging.above": ABOVE,
    }
    assert found_in(**modules) == {
        "registry.sample._other",
        "registry.sample.helpers.make",
        "messaging.above.stray",
    }


def test_it_follows_a_name_that_a_package_passes_on() -> None:
    package = "from registry.sample.helpers import make"
    caller = (
        "from registry.change import registry_change\n"
        "from registry.package import make\n"
        "def action(actor):\n    with registry_change(actor):\n        make()\n"
    )
    modules = {
        "registry.package": package,
        "registry.sample.helpers": HELPERS,
        "registry.caller": caller,
    }
    assert not found_in(**modules)
    alone = {name: modules[name] for name in ("registry.package", "registry.sample.helpers")}
    assert found_in(**alone) == {"registry.sample.helpers.make"}


def found_in(**sources: str) -> set[str]:
    """The functions of these modules that write in no change."""
    modules = {name: ast.parse(source) for name, source in sources.items()}
    return set(Writes(modules).unguarded())
