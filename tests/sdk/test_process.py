"""Agents as programs of their own: what such a process leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.cast import make_agent
from tests.conftest import LiveHub
from tests.sources import ROOT

PROGRAM_SECONDS = 60


def test_it_leaves_no_socket_open(hub: LiveHub) -> None:
    asker = make_agent("verified")
    answerer = make_agent("verified", organisation=asker.organisation)
    told = {
        "url": hub.ws_url,
        "id": asker.hub,
        "agents": {one.id: one.key.to_pem().decode() for one in (asker, answerer)},
    }
    warnings = ("-X", "dev", "-W", "error::ResourceWarning")
    done = subprocess.run(
        [sys.executable, *warnings, "-m", "tests.sdk.program", json.dumps(told)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")
