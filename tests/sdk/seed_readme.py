"""Find the Python blocks of the seed's README and run them as written."""

from __future__ import annotations

import ast
import inspect
import os
import re
from pathlib import Path
from typing import Any

from tests.needs import missing
from tests.sources import ROOT

SEED = Path(os.environ.get("ATP_SEED") or ROOT.parent / "shared" / "seed" / "README.md")

# Blocks that current libraries, or this SDK, do not run as written, and the changes to them.
ADAPTED: dict[str, list[tuple[str, str]]] = {
    # websockets 14 dropped handlers with a path and serving without a running event loop. The
    # port is the system's choice, because a test can't rely on 8080 being free.
    "WebSocket Integration": [
        (
            "async def websocket_handler(websocket, path):",
            "async def websocket_handler(websocket):",
        ),
        (
            'start_server = websockets.serve(websocket_handler, "localhost", 8080)\n'
            "asyncio.get_event_loop().run_until_complete(start_server)\n"
            "asyncio.get_event_loop().run_forever()",
            'server = await websockets.serve(websocket_handler, "localhost", 0)',
        ),
    ],
    # A client that was disconnected opens only by `connect()`. The block lists methods, and goes
    # on to send after `disconnect()`.
    "ATPClient": [
        (
            "await client.disconnect()\n",
            "await client.disconnect()\nawait client.connect()\n",
        ),
    ],
}

_HEADING_OR_BLOCK = re.compile(r"^#{2,4} (?P<title>.+)$|^```(?P<language>\w*)\n", re.MULTILINE)


def blocks() -> dict[str, str]:
    """Return the Python block below each heading; skip if the seed is missing."""
    if not SEED.is_file():
        missing(f"no seed README at {SEED}; set ATP_SEED")
    return _find(SEED.read_text(encoding="utf-8"))


def adapted(title: str, source: str) -> str:
    """Return the block with the changes above; each change must apply exactly once."""
    for was, becomes in ADAPTED.get(title, []):
        assert source.count(was) == 1, f"{title}: the README no longer says {was!r}"
        source = source.replace(was, becomes)
    return source


async def run(source: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run a block, which may await at its top level; return its names afterwards."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, "README.md of the seed", "exec", flags=flags)
    outcome = eval(code, names)  # noqa: S307 - the seed is the requirement under test
    if inspect.isawaitable(outcome):
        await outcome
    return names


def run_program(source: str) -> None:
    """Run a block that is a whole program with its own event loop."""
    exec(compile(source, "README.md of the seed", "exec"), {})  # noqa: S102 - as above


def _find(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    title, position = "", 0
    while match := _HEADING_OR_BLOCK.search(text, position):
        position = match.end()
        if match["title"] is not None:
            title = match["title"].strip()
            continue
        end = text.index("\n```", position)
        if match["language"] == "python":
            assert title not in found, f"two blocks below {title}"
            found[title] = text[position:end]
        position = end + len("\n```")
    return found
