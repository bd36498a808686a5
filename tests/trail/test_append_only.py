"""The trail can't be changed, neither by models nor by SQL, on both databases."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import IntegrityError, connection, transaction
from django.db.models.signals import post_migrate

from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind
from registry.trail.models import Entry, EntryBody
from registry.trail.triggers import make_triggers, missing_triggers
from tests.trail.unprotected import drop_triggers

pytestmark = pytest.mark.usefixtures("database")

TABLES = ["registry_entry", "registry_entrybody"]
CHANGES = [
    "UPDATE TABLE SET position = 1000000 WHERE position = 0",
    "UPDATE TABLE SET position = position",
    "DELETE FROM TABLE WHERE position = 0",
    "DELETE FROM TABLE",
]
REPLACE = {
    "sqlite": "REPLACE INTO TABLE SELECT * FROM TABLE WHERE position = 0",
    "postgresql": "INSERT INTO TABLE SELECT * FROM TABLE WHERE position = 0"
    " ON CONFLICT (position) DO UPDATE SET position = excluded.position",
}


@pytest.fixture
def entry() -> Entry:
    with transaction.atomic():
        index = append([EntryDraft(Kind.AGENT_SUSPENDED, subject="mallory")])
    return Entry.objects.select_related("body").get(position=index)


def run(sql: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


def test_rejects_change_through_the_models(entry: Entry) -> None:
    for row in (entry, entry.body):
        with pytest.raises(TypeError):
            row.save()
        with pytest.raises(TypeError):
            row.delete()


@pytest.mark.parametrize("model", [Entry, EntryBody])
def test_rejects_change_through_query_sets(model: type[Entry] | type[EntryBody]) -> None:
    rows = model.objects.all()
    with pytest.raises(TypeError):
        rows.update()
    with pytest.raises(TypeError):
        rows.delete()
    with pytest.raises(TypeError):
        rows.create()
    with pytest.raises(TypeError):
        rows.bulk_create([])


def test_rejects_change_through_managers_that_nobody_guards(entry: Entry) -> None:
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Entry._base_manager.db_manager("default").filter(pk=entry.pk)._raw_delete("default")
    assert Entry.objects.filter(pk=entry.pk).exists()


@pytest.mark.parametrize("table", TABLES)
def test_rejects_change_by_sql(entry: Entry, table: str) -> None:
    for statement in CHANGES:
        with pytest.raises(IntegrityError, match="append-only"):
            run(statement.replace("TABLE", table))
    entry.refresh_from_db()
    assert entry.subject == "mallory"


@pytest.mark.parametrize("table", TABLES)
def test_rejects_emptying_a_table(entry: Entry, table: str) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no TRUNCATE")
    with pytest.raises(IntegrityError, match="append-only"):
        run(f"TRUNCATE {table} CASCADE")


@pytest.mark.parametrize("table", TABLES)
def test_rejects_replacing_a_row(entry: Entry, table: str) -> None:
    with pytest.raises(IntegrityError, match="append-only"):
        run(REPLACE[connection.vendor].replace("TABLE", table))


def test_it_notices_a_missing_trigger_and_remakes_it() -> None:
    assert missing_triggers() == []
    drop_triggers()
    try:
        missing = missing_triggers()
        found = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
        assert [error.id for error in found] == ["atp.E010"] * len(missing)
        with pytest.raises(SystemCheckError, match=missing[0]):
            call_command("check", databases=["default"])
        config = apps.get_app_config("registry")
        post_migrate.send(config, app_config=config, using="default", verbosity=0)
        assert missing_triggers() == []
    finally:
        make_triggers()


def test_it_notices_a_trigger_that_was_switched_off() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite can't switch a trigger off")
    run("ALTER TABLE registry_entry DISABLE TRIGGER registry_entry_append_only")
    try:
        assert missing_triggers() == ["registry_entry_append_only"]
    finally:
        run("ALTER TABLE registry_entry ENABLE TRIGGER registry_entry_append_only")
