"""Clients that programs generate from the schema understand what the hub answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from django.core.management import call_command

from registry.officers.groups import AUDITORS
from tests.trail.readers import PROVENANCE, add, fresh, note, person, token_of

CALLS = """
import sys
from client import AuthenticatedClient
from client.api.provenance import provenance_export, provenance_feed
from client.api.provenance import provenance_list, provenance_read
from client.models import Entry, Problem, ProvenanceExportFormat
from client.types import UNSET

url, token, sender, index = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=token)

page = provenance_list.sync(client=client, sender=[sender])
assert page.next_ is None and page.searched_to is None, page
(entry,) = page.results
assert entry.index == int(index) and entry.score is None and entry.sender == sender, entry

(entry,) = provenance_list.sync(client=client, sender=[sender], fields="index,kind").results
assert entry.kind == "envelope.accepted" and entry.sender is UNSET and entry.score is UNSET, entry

entry = provenance_read.sync(int(index), client=client)
assert isinstance(entry, Entry) and entry.body["shared"]["kept"] == 1, entry

feed = provenance_feed.sync(client=client, sender=[sender])
assert feed.results[0].index == int(index) and feed.retry_after is None, feed

text = provenance_export.sync(client=client, sender=[sender], format_=ProvenanceExportFormat.CSV)
assert sender in text, text

problem = provenance_list.sync(client=client, score_from=80, score_to=70)
assert isinstance(problem, Problem) and "scoreTo" in problem.errors, problem
"""

VALIDATIONS = """
import sys
from models import Entry, EntryPage, Feed

page, fields, entry, feed = (open(name, "rb").read() for name in sys.argv[1:])
assert EntryPage.model_validate_json(page).results[0].score is None
assert EntryPage.model_validate_json(fields).results[0].model_fields_set == {"index", "kind"}
assert Entry.model_validate_json(entry).body["shared"]["kept"] == 1
assert Feed.model_validate_json(feed).retryAfter is None
"""


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "schema.yml"
    call_command("spectacular", file=str(path))
    return path


@pytest.fixture
def entry(hub: Any) -> tuple[str, int]:
    sender = fresh("alice")
    return sender, add(note(sender=sender, shared={"kept": 1, "reason": "fine"}))


def run(*command: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_client_of_openapi_python_client_works(
    hub: Any, schema: Path, entry: tuple[str, int], tmp_path: Path
) -> None:
    generate = ("generate", "--path", str(schema), "--output-path", "client", "--meta", "none")
    run("-m", "openapi_python_client", *generate, folder=tmp_path)
    (tmp_path / "calls.py").write_text(CALLS, encoding="utf-8")
    sender, index = entry
    token = token_of(person(AUDITORS))
    run("calls.py", hub.http_url, token, sender, str(index), folder=tmp_path)


def test_models_of_datamodel_codegen_fit(
    auditor: httpx.Client, schema: Path, entry: tuple[str, int], tmp_path: Path
) -> None:
    run(
        "-m", "datamodel_code_generator", "--input", str(schema), "--input-file-type", "openapi",
        "--output", "models.py", "--output-model-type", "pydantic_v2.BaseModel",
        "--target-python-version", "3.11", "--formatters", "builtin", folder=tmp_path,
    )  # fmt: skip
    sender, index = entry
    answers = {
        "page": auditor.get(PROVENANCE, params={"sender": sender}),
        "fields": auditor.get(PROVENANCE, params={"sender": sender, "fields": "index,kind"}),
        "entry": auditor.get(f"{PROVENANCE}{index}/"),
        "feed": auditor.get(f"{PROVENANCE}feed", params={"sender": sender}),
    }
    for name, answer in answers.items():
        assert answer.status_code == 200, answer.text
        (tmp_path / name).write_bytes(orjson.dumps(answer.json()))
    (tmp_path / "validations.py").write_text(VALIDATIONS, encoding="utf-8")
    run("validations.py", *answers, folder=tmp_path)
