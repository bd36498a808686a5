"""docs/operations.md has the settings as they are, and a backup that a hub starts from."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from django.core.management import get_commands

from atp_site import settings as source
from tests.docs.tables import blocks, code, page, rows
from tests.processes import HubProcess, manage, start_hub

PAGE = "docs/operations.md"
PRODUCTION = "docs/production.md"
SETTINGS = {
    code(row["variable"]): row for row in rows(PAGE, columns=("variable", "what", "default"))
}
NO_DEFAULT = "-"


def test_it_lists_every_variable_with_its_default() -> None:
    told = {
        name: (row["what"], "" if row["default"] == NO_DEFAULT else row["default"])
        for name, row in SETTINGS.items()
    }
    assert told == _documented()


def test_it_gives_the_limits_in_force() -> None:
    limits = rows(PAGE, columns=("limit", "value", "of what"))
    told = {code(row["limit"]): float(row["value"]) for row in limits}
    assert len(told) > 10
    assert told == {name: getattr(source, name) for name in told}


def test_it_names_the_files_of_a_data_folder(tmp_path: Path) -> None:
    with _running(tmp_path / "data") as hub:
        files = {path.name for path in hub.data_dir.iterdir() if path.is_file()}
    table = rows(PAGE, columns=("file", "what"))
    named = {name for row in table for name in re.findall(r"`([a-z][^`]+)`", row["file"])}
    assert named <= files
    assert {name.removesuffix("-wal").removesuffix("-shm") for name in files} <= named


def test_it_backs_up_a_running_hub(tmp_path: Path) -> None:
    """The copy is a hub of its own right: the same id, and its sealed keys can be opened."""
    with _running(tmp_path / "var") as hub:
        hub_id = httpx.get(f"{hub.url}/api/v1/hub").json()["hub"]
        (backup,) = [b for b in blocks(PAGE) if b.note == "<!-- run: backup -->"]
        script = backup.text.replace(".venv/bin/python", sys.executable)
        subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, timeout=60)
    shutil.move(tmp_path / "backup", tmp_path / "restored")
    with _running(tmp_path / "restored") as restored:
        answer = httpx.get(f"{restored.url}/api/v1/hub").json()
        assert answer["hub"] == hub_id
        assert "password" not in restored.output, "it knows its officers"


def test_it_checks_before_going_live(tmp_path: Path) -> None:
    (check,) = [b for b in blocks(PRODUCTION) if b.note == "<!-- run: check -->"]
    command = check.text.split()
    assert command[:2] == [".venv/bin/python", "manage.py"]
    done = manage(command[2:], tmp_path, {"ATP_PUBLIC_URL": "https://hub.example.com"})
    assert done.returncode == 0, done.stderr


def test_it_runs_or_explains_every_command() -> None:
    notes = [b.note for name in (PAGE, PRODUCTION) for b in blocks(name) if b.language == "bash"]
    assert all(re.match(r"<!-- (run|not run): \w+", note) for note in notes)


def test_it_makes_secrets_that_a_hub_takes(tmp_path: Path) -> None:
    (made,) = [b for b in blocks(PRODUCTION) if b.note == "<!-- run: secrets -->"]
    subprocess.run(["bash", "-euc", made.text], cwd=tmp_path, check=True, timeout=60)
    files = {
        "ATP_SECRET_KEY_FILE": str(tmp_path / "secret-key"),
        "ATP_KEY_ENCRYPTION_KEY_FILE": str(tmp_path / "key-encryption-key"),
    }
    engines = {
        "ATP_DATABASE_URL": "postgres://127.0.0.1/hub",
        "ATP_REDIS_URL": "redis://127.0.0.1/0",
        "ATP_BROKER_URL": "redis://127.0.0.1/1",
        "ATP_PUBLIC_URL": "https://hub.example.com",
    }
    strict = ["check", "--deploy", "--fail-level", "WARNING"]
    done = manage(strict, tmp_path / "data", {**files, **engines})
    assert (done.returncode, done.stderr) == (0, "")


def test_it_names_commands_that_exist() -> None:
    text = "\n".join(page(name) for name in (PAGE, PRODUCTION))
    named = set(re.findall(r"manage\.py ([a-z_]+)", text))
    assert {"hub", "worker", "beat", "rotate_hub_key", "reseal_keys", "migrate"} <= named
    assert named <= set(get_commands())


@contextmanager
def _running(data: Path) -> Iterator[HubProcess]:
    """A hub that ends with the test, however that ends."""
    hub = start_hub(data)
    try:
        yield hub
    finally:
        hub.stop()


def _documented() -> dict[str, tuple[str, str]]:
    """Return each setting's description and default by name, from the docstring of the settings."""
    table = (source.__doc__ or "").split("\n\n")[1]
    found = {}
    for item in re.split(r"\n(?=ATP_)", table.strip()):
        name, _, text = item.partition(" ")
        what, _, default = " ".join(text.split()).partition("; ")
        found[name] = (what, default)
    return found
