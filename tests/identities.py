"""Agents enrolled at a hub in another process, as players of the tests' cast."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from atp.trust.keys import PrivateKey, PublicKey
from tests.cast import Player
from tests.processes import HubProcess, hub_environment
from tests.sources import ROOT


def enrol(
    hub: HubProcess, count: int, folder: Path, env: Mapping[str, str] | None = None
) -> list[Path]:
    """Enrol new agents at an embedded hub; return their identity files."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.provision", str(count), str(folder)],
        cwd=ROOT,
        env=hub_environment(hub.data_dir, hub.port, env or {}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [Path(line) for line in done.stdout.splitlines()]


def player(identity: Path) -> Player:
    """Return the agent of an identity file, without the rows of its hub."""
    row = json.loads(identity.read_text())
    key = PrivateKey.from_pem((identity.parent / row["key"]).read_bytes())
    hub_key = PublicKey.from_jwk(row["hub_key"])
    return Player(row["agent"], key, row["hub"], hub_key, organisation=None)  # type: ignore[arg-type]
