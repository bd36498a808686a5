"""`make` in a fresh clone: its help, its environment, its refusals."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.sources import ROOT

LONG_AGO = 1_000_000_000  # seconds since 1970, before any file of the project


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What looks like a complete environment, younger than all that it is made from."""
    venv = tmp_path / "venv"
    venv.mkdir()
    for stamp in (".python", ".runtime", ".develop"):
        (venv / stamp).touch()
    return venv


def test_it_lists_its_commands() -> None:
    for listed in (make(), make("help")):
        assert listed.returncode == 0
        for command in ("run", "test", "demo", "lint", "bench", "help"):
            assert f"  make {command} " in listed.stdout


def test_it_installs_nothing_twice(made: Path) -> None:
    assert make("-n", "run", f"VENV={made}").stdout.splitlines() == [
        f"exec {made}/bin/python manage.py hub"
    ]


@pytest.mark.parametrize(("command", "stamp"), [("run", ".runtime"), ("test", ".develop")])
def test_it_installs_again_when_requirements_changed(command: str, stamp: str, made: Path) -> None:
    os.utime(made / stamp, (LONG_AGO, LONG_AGO))
    assert "pip install" in make("-n", command, f"VENV={made}").stdout


@pytest.mark.parametrize(
    ("script", "sentence"), [("#!/bin/sh\nexit 1\n", "is older"), (None, "There is no")]
)
def test_rejects_a_python_that_cannot_run_it(
    script: str | None, sentence: str, tmp_path: Path
) -> None:
    python = tmp_path / "python3"
    if script is not None:
        python.write_text(script)
        python.chmod(0o755)
    done = make("run", f"VENV={tmp_path}/venv", f"PYTHON={python}")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert sentence in said[0]
    assert "3.11" in said[0]
    assert not (tmp_path / "venv").exists()
