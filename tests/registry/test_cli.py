"""`atp keygen` and `atp enroll`, as processes against a real hub."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from atp.agent.identity_file import read_identity_file
from atp.cli import enroll
from atp.errors import IdentityEnrolment, MalformedDocument
from atp.trust.fingerprint import fingerprint
from atp.trust.keys import PrivateKey
from registry.agents.actions import approve_key, issue_enrolment_token
from registry.agents.models import AgentKey
from registry.hub.actions import hub_id, session_key
from tests.conftest import LiveHub
from tests.registry.admin_cast import officer_client, text_of
from tests.registry.agent_cast import OFFICER, attest, register
from tests.sources import ROOT


def atp(
    arguments: Sequence[object], folder: Path, *, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return python("-m", "atp.cli", *map(str, arguments), folder=folder, stdin=stdin)


def python(*arguments: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def agent(hub: LiveHub) -> str:
    return register("cli").id


@pytest.fixture
def token(agent: str) -> str:
    return issue_enrolment_token(agent, actor=OFFICER).text


def test_it_makes_a_key_for_its_owner_only(tmp_path: Path) -> None:
    done = atp(["keygen", "deep/key.pem"], tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "deep" / "key.pem"
    key = PrivateKey.from_pem(path.read_bytes())
    assert mode(path) == 0o600
    assert fingerprint(key.kid) in done.stdout
    assert "PRIVATE" not in done.stdout


def test_rejects_to_overwrite_a_key(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("precious")
    done = atp(["keygen", "key.pem"], tmp_path)
    assert (done.returncode, (tmp_path / "key.pem").read_text()) == (1, "precious")
    assert done.stderr.startswith("atp: key.in_use:")


def test_rejects_to_follow_a_link_that_waits_there(tmp_path: Path) -> None:
    (tmp_path / "key.pem").symlink_to(tmp_path / "elsewhere")
    assert atp(["keygen", "key.pem"], tmp_path).returncode == 1
    assert not (tmp_path / "elsewhere").exists()


def test_it_enrols(hub: LiveHub, agent: str, token: str, tmp_path: Path) -> None:
    command = ["enroll", "--hub", hub.http_url, "--hub-id", hub_id(), "--agent", agent]
    done = atp(command, tmp_path, stdin=token + "\n")
    assert done.returncode == 0, done.stderr
    path = tmp_path / agent / "identity.json"
    identity = read_identity_file(path)
    row = AgentKey.objects.get(pk=identity.key.kid)
    assert (row.agent_id, row.status) == (agent, "pending")
    assert (identity.agent, identity.hub_id) == (agent, hub_id())
    assert (identity.hub_key, identity.ws_url) == (session_key().public, hub.ws_url)
    assert (mode(path), mode(path.parent / "key.pem")) == (0o600, 0o600)
    assert fingerprint(identity.key.kid) in done.stdout
    assert token not in done.stdout + done.stderr + path.read_text()
    again = atp(command, tmp_path, stdin=token)
    assert again.returncode == 0, again.stderr


def test_it_enrols_a_key_that_is_there(
    hub: LiveHub, agent: str, token: str, tmp_path: Path
) -> None:
    atp(["keygen", "keys/own.pem", "--alg", "ES256"], tmp_path)
    (tmp_path / "token").write_bytes(token.encode("utf-16"))  # as PowerShell writes it
    where = ["--key", "keys/own.pem", "--out", "who/identity.json"]
    who = ["--hub", hub.http_url, "--agent", agent, "--token-file", "token"]
    done = atp(["enrol", *who, *where], tmp_path)
    assert done.returncode == 0, done.stderr
    identity = read_identity_file(tmp_path / "who" / "identity.json")
    assert identity.key.alg == "ES256"
    assert json.loads((tmp_path / "who" / "identity.json").read_text())["key"] == "../keys/own.pem"


@pytest.mark.parametrize(
    ("changes", "stdin", "code"),
    [
        ({"--hub-id": "hub-elsewhere"}, "{token}", "identity.mismatch"),
        ({"--agent": "Not An Id"}, "{token}", "identity.invalid_id"),
        ({"--hub": "http://hub.example.com"}, "{token}", "malformed.document"),
        ({"--hub": "ftp://127.0.0.1"}, "{token}", "malformed.document"),
        ({"--hub": "http://127.0.0.1:9"}, "{token}", "session.transport"),
        ({}, "", "identity.enrolment"),
        ({}, "wrong-token", "identity.enrolment"),
        ({"--agent": "somebody-else"}, "{token}", "identity.enrolment"),
    ],
)
def test_rejects_what_can_not_be_enrolled(
    hub: LiveHub,
    agent: str,
    token: str,
    tmp_path: Path,
    changes: dict[str, str],
    stdin: str,
    code: str,
) -> None:
    options = {"--hub": hub.http_url, "--agent": agent, **changes}
    command = ["enroll", *(part for option in options.items() for part in option)]
    done = atp(command, tmp_path, stdin=stdin.format(token=token))
    assert done.returncode == 1
    assert done.stderr.startswith(f"atp: {code}: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
    assert not AgentKey.objects.filter(agent=agent).exists()


def test_it_says_whose_token_it_is_not(hub: LiveHub, token: str, tmp_path: Path) -> None:
    """And leaves what was there as it was."""
    other = register("other").id
    atp(["keygen", f"{other}/key.pem"], tmp_path)
    done = atp(["enroll", "--hub", hub.http_url, "--agent", other], tmp_path, stdin=token)
    assert f"this enrolment token is not for '{other}'" in done.stderr
    assert [path.name for path in (tmp_path / other).iterdir()] == ["key.pem"]


def test_it_keeps_the_key_where_the_answer_got_lost(hub: LiveHub, tmp_path: Path) -> None:
    """The hub may have taken it; the same key and token are told the same again."""
    with deaf_hub(hub) as url:
        done = atp(["enroll", "--hub", url, "--agent", "alice"], tmp_path, stdin="a-token")
    assert done.stderr.startswith("atp: session.transport: ")
    assert [path.name for path in (tmp_path / "alice").iterdir()] == ["key.pem"]


def test_rejects_a_token_on_the_command_line(hub: LiveHub, agent: str, tmp_path: Path) -> None:
    command = ["enroll", "--hub", hub.http_url, "--agent", agent, "--token", "secret"]
    assert atp(command, tmp_path).returncode == 2


def test_it_shows_what_there_is_when_nothing_was_asked_for(tmp_path: Path) -> None:
    alone, asked = atp([], tmp_path), atp(["--help"], tmp_path)
    assert (alone.returncode, asked.returncode) == (2, 0)
    assert alone.stderr == asked.stdout
    for told in ("make a key pair", "enrol an agent at a hub", "atp enroll --hub https://"):
        assert told in asked.stdout


def test_it_runs_what_the_page_of_a_token_shows(hub: LiveHub, agent: str, tmp_path: Path) -> None:
    """The command and the program, copied as they stand."""
    officer = officer_client()
    officer.defaults["HTTP_HOST"] = urlsplit(hub.http_url).netloc
    shown = text_of(officer.post(f"/admin/registry/agent/{agent}/invite/"))
    token, command, program = (_shown(name, shown) for name in ("token", "command", "program"))
    assert command.startswith(".venv/bin/atp ")
    done = atp(command.split()[1:], tmp_path, stdin=token)
    assert done.returncode == 0, done.stderr
    approve_key(AgentKey.objects.get(agent=agent).kid, actor=OFFICER)
    attest(agent)
    (tmp_path / "hello.py").write_text(program)
    ran = python("hello.py", folder=tmp_path)
    assert ran.stdout.startswith("connected, score ")
    assert (ran.returncode, ran.stderr[:31]) == (1, "refused: recipient.unavailable:")


def _shown(name: str, page: str) -> str:
    found = re.search(rf'<pre id="{name}">(.*?)</pre>', page, re.DOTALL)
    assert found is not None
    return found.group(1)


@contextmanager
def deaf_hub(hub: LiveHub) -> Iterator[str]:
    """A server that answers with the hub's document and closes the connection of an enrolment."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"hub": hub_id()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(20)
            assert not thread.is_alive(), "the deaf hub did not end"


@pytest.mark.parametrize("arguments", [["--help"], ["keygen", "--help"], ["enroll", "--help"]])
def test_it_helps(arguments: list[str], tmp_path: Path) -> None:
    done = atp(arguments, tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: atp")


def test_it_says_that_there_is_no_token_when_nobody_types_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ctrl_d(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", ctrl_d)
    with pytest.raises(IdentityEnrolment, match="no one-time token"):
        enroll._read_token(None)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://localhost:8000"),
        ("hub.example", "https://hub.example"),
    ],
)
def test_it_speaks_https_to_all_but_this_machine(typed: str, meant: str) -> None:
    assert enroll._check_url(typed) == meant


@pytest.mark.parametrize("typed", ["[x", "http://[x", "http://hub.example", "ftp://localhost"])
def test_rejects_an_address_that_it_must_not_use(typed: str) -> None:
    with pytest.raises(MalformedDocument):
        enroll._check_url(typed)
