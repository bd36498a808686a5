"""`make demo`: the story comes true, on a hub that runs and on one of its own."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import HubProcess, free_port, hub_environment, manage, start_hub
from tests.sources import ROOT

LONGEST_SECONDS = 120
FIRST_ISSUER = """
from registry.issuers.actions import Limits, create_issuer
from registry.officers.actor import Actor
limits = Limits(highest_level="sandboxed", capability_patterns=("*",))
create_issuer("aardvark", limits, name="Aardvark", actor=Actor.hub())
"""
SHOWN = (
    "enrolment",
    "attestation",
    "a request and its answer",
    "concurrent requests",
    "a notification",
    "a broadcast",
    "a denial by trust",
    "a denial by policy",
    "a forged signature",
    "a replay",
    "mail for an agent that is away",
    "a revocation that cuts a live socket",
    "the trail of it all",
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub of its own process, as `make run` starts it."""
    hub = start_hub(tmp_path_factory.mktemp("hub") / "data")
    # An issuer that the form offers first, and that may not vouch for what the story needs.
    made = manage(["shell", "-c", FIRST_ISSUER], hub.data_dir)
    assert made.returncode == 0, made.stderr
    yield hub
    hub.stop()


def test_it_comes_true_twice_at_a_time_on_a_running_hub(
    running: HubProcess, tmp_path: Path
) -> None:
    account = {"ATP_OFFICER": "officer", "ATP_OFFICER_PASSWORD": running.officer_password}
    stories = [_begin(running.port, tmp_path, account) for _ in range(2)]
    told = [story.communicate(timeout=LONGEST_SECONDS)[0] for story in stories]
    for story, text in zip(stories, told, strict=True):
        assert story.returncode == 0, text
        assert f"which runs at {running.url}" in text
    assert running.is_running(), "a hub that ran before is left as it was"


def test_it_starts_a_hub_where_none_runs_and_stops_it(tmp_path: Path) -> None:
    port = free_port()
    story = _begin(port, tmp_path, {})
    text, _ = story.communicate(timeout=LONGEST_SECONDS)
    assert story.returncode == 0, text
    summary = text.partition("What was shown")[2]
    assert [what for what in SHOWN if what not in summary] == []
    _assert_timeline_has_numbers(text)
    assert "\x1b" not in text, "colour is for terminals"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the hub still runs"
    assert list(tmp_path.iterdir()) == [], "something was left behind"


def test_it_says_so_where_nobody_signs_in(running: HubProcess, tmp_path: Path) -> None:
    story = _begin(running.port, tmp_path, {})
    text, _ = story.communicate(timeout=LONGEST_SECONDS)
    assert story.returncode == 1
    assert "set ATP_OFFICER and ATP_OFFICER_PASSWORD" in _unwrapped(text)


def test_it_fails_where_the_password_is_wrong(running: HubProcess, tmp_path: Path) -> None:
    story = _begin(running.port, tmp_path, {"ATP_OFFICER_PASSWORD": "not-the-password"})
    text, _ = story.communicate(timeout=LONGEST_SECONDS)
    assert story.returncode == 1
    assert "The demo failed:" in text
    assert "not-the-password" not in text


def test_it_says_so_where_something_else_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(LONGEST_SECONDS)
        story = _begin(other.getsockname()[1], tmp_path, {})
        with other.accept()[0] as caller:
            caller.recv(1000)
            caller.sendall(b"220 mail.example ESMTP\r\n")
        text, _ = story.communicate(timeout=LONGEST_SECONDS)
    assert story.returncode == 1
    assert "is no hub" in text


def _begin(port: int, temporary: Path, account: dict[str, str]) -> subprocess.Popen[str]:
    environment = hub_environment(temporary, port, {**account, "TMPDIR": str(temporary)})
    del environment["ATP_DATA_DIR"]
    return subprocess.Popen(
        [sys.executable, "-m", "examples.story"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _assert_timeline_has_numbers(text: str) -> None:
    """Each line of the timeline begins with its entry, and they stand in order."""
    table = text.partition("time (UTC)")[2].partition("compared with it")[0]
    numbers = [int(n) for n in re.findall(r"^ {4}(\d+)", table, re.MULTILINE)]
    assert len(numbers) > 20
    assert numbers == sorted(set(numbers))


def _unwrapped(text: str) -> str:
    return " ".join(text.split())
