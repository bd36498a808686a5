"""The demo of the README runs, shows eight things, and can fail."""

from __future__ import annotations

import subprocess
import sys

import pytest

from atp.examples import async_demo
from tests.sources import ROOT


def test_it_shows_eight_things() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "atp.examples.async_demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 of 8 shown" in done.stdout
    assert "FAILED" not in done.stdout
    assert not done.stderr


def test_it_fails_when_one_of_them_does_not_happen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An agent that answers nobody: whatever needs an answer is reported as failed."""
    monkeypatch.setattr(async_demo, "_teach", _teach_silence)
    monkeypatch.setattr(async_demo, "WAIT_SECONDS", 0.1)
    assert async_demo.main() == 1
    assert (
        "2. A request is answered\n   FAILED: handler.failed: returned" in capsys.readouterr().out
    )


def _teach_silence(cast: async_demo.Cast) -> None:
    for client in (cast.analyst, cast.processor, cast.newcomer):
        client.on_message("request", lambda envelope: None)
