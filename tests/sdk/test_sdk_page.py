"""docs/sdk.md: its program runs, its tables are those of the code."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

from atp import ATPClient, IAgentIdentity, InMemoryTransport, errors
from atp.agent.options import SendOptions
from tests.sources import ROOT

PAGE = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")


def table_after(heading: str) -> list[str]:
    """The first column of the next table, names in backticks only."""
    rows = PAGE[PAGE.index(heading) :].split("|---", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return [name for row in rows for name in re.findall(r"`(\w+)", row.split("|")[1])]


def test_it_shows_a_program_that_runs() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{'sum': 6} ")


def test_it_lists_every_option() -> None:
    listed = table_after("Options are a dict")
    assert listed == [field.name for field in dataclasses.fields(SendOptions)]


def test_it_names_errors_that_exist() -> None:
    named = table_after("### When there is no answer")
    assert named
    assert all(issubclass(getattr(errors, name), errors.ATPError) for name in named)


def test_it_names_methods_that_exist() -> None:
    named = table_after("## Demo mode")
    assert len(named) > 8
    transport = InMemoryTransport()
    assert all(hasattr(transport, name) for name in named)


def test_it_lists_what_the_status_has() -> None:
    status = ATPClient(IAgentIdentity("a"), "verified").get_trust_status()
    line = next(
        line for line in PAGE.splitlines() if line.startswith("`client.get_trust_status()`")
    )
    assert re.findall(r"`(\w+)`", line) == list(status)
