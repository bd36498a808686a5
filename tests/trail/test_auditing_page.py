"""The script and the commands of docs/auditing.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from registry.officers.groups import AUDITORS
from tests.sources import ROOT
from tests.trail.readers import PROVENANCE, add, fresh, note, person, token_of


@pytest.fixture
def script(tmp_path: Path) -> Path:
    page = (ROOT / "docs" / "auditing.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.S)
    path = tmp_path / "check.py"
    path.write_text(block, encoding="utf-8")
    return path


def run(script: Path, export: bytes) -> list[str]:
    path = script.with_name("trail.ndjson")
    path.write_bytes(export)
    done = subprocess.run(
        [sys.executable, str(script), str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def test_it_confirms_an_export_and_catches_one_changed_value(
    auditor: httpx.Client, script: Path
) -> None:
    sender = fresh("alice")
    first = add(
        note(sender=sender, score=0, shared={"ratio": 0.1, "é": "\u2028"}),
        note(sender=sender, subject="tab\there", shared={"code": "a"}),
    )
    export = auditor.get(f"{PROVENANCE}export", params={"format": "ndjson", "sender": sender})
    assert run(script, export.content) == [f"{first} fits", f"{first + 1} fits"]
    lines = [orjson.loads(line) for line in export.content.splitlines()]
    lines[0]["score"] = 1
    lines[1]["body"]["shared"]["code"] = "b"
    changed = b"\n".join(orjson.dumps(line) for line in lines)
    assert run(script, changed) == [f"{first} DOES NOT FIT", f"{first + 1} DOES NOT FIT"]


def test_it_says_what_of_an_entry_cannot_be_checked_any_more(
    auditor: httpx.Client, script: Path
) -> None:
    sender = fresh("alice")
    cut = {"count": 256, "bytes": 200_000, "digest": "d", "head": "h"}
    first = add(note(sender=sender, shared={"notKept": {"provenance": cut}}))
    export = auditor.get(f"{PROVENANCE}export", params={"format": "ndjson", "sender": sender})
    assert run(script, export.content) == [f"{first} fits (provenance not kept)"]


def commands() -> list[str]:
    """Return the page's commands, each with its continuation lines."""
    page = (ROOT / "docs" / "auditing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^((?: {4,}\S.*\n)+)", page, re.M)
    return [textwrap.dedent(block) for block in blocks if "curl" in block]


def test_it_runs_every_command_of_the_page(hub: Any, tmp_path: Path) -> None:
    found = commands()
    assert len(found) >= 3
    script = "\n".join(["set -e", *found]).replace("http://127.0.0.1:8000", hub.http_url)
    done = subprocess.run(
        ["bash", "-c", script.replace("curl ", "curl --silent --show-error --fail-with-body ")],
        env={"PATH": os.environ["PATH"], "TOKEN": token_of(person(AUDITORS))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr
