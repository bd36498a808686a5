"""Every wait in a test has an end: no call here can block for ever."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.sources import ROOT, parsed, python_files

ENDED_BY_OTHERS = {  # waits of agents, proxies and handlers, which the test itself ends
    "tests/crash/proxy.py: wait": "`Proxy.__exit__` cancels what passes bytes on",
    "tests/crash/responder.py: wait": "a process of its own, which the test terminates",
    "tests/messaging/test_lanes.py: wait": "the fixture sets the event, and stops the lane in 5 s",
    "tests/waits.py: wait": "within `asyncio.timeout`",
    "tests/sdk/test_seed_readme.py: recv": "within `asyncio.timeout`",
    "tests/sdk/fake_hub.py: recv": "the world closes the sockets of its fake hub",
    "tests/site/test_health.py: result": "a `Look` has an end of its own, which is what it tests",
}
UNENDING = {"communicate", "join", "readline", "readlines", "recv", "result", "wait"}
TAKES_TIMEOUT = {"run", "check_call", "check_output", "create_connection"}


def unending(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The calls that wait without an end, by name and line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            bare = not node.args and not node.keywords
            module = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if (name in UNENDING and bare) or (
                name in TAKES_TIMEOUT
                and module in {"subprocess", "socket"}
                and "timeout" not in {keyword.arg for keyword in node.keywords}
            ):
                yield name, node.lineno


def test_every_wait_has_an_end() -> None:
    found, used = [], set()
    for path in python_files("tests"):
        file = path.relative_to(ROOT).as_posix()
        for name, line in unending(parsed(path)):
            if (key := f"{file}: {name}") in ENDED_BY_OTHERS:
                used.add(key)
            else:
                found.append(f"{file}:{line}: .{name}() waits for ever; see tests/waits.py")
    assert not found, "\n".join(found)
    assert used == ENDED_BY_OTHERS.keys(), "an exception that is not needed any more"


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("process.wait()", ["wait"]),
        ("process.wait(5)", []),
        ("subprocess.run(['true'], check=True)", ["run"]),
        ("subprocess.run(['true'], check=True, timeout=5)", []),
        ("process.communicate('typed', timeout=5)", []),
        ("socket.create_connection(there)", ["create_connection"]),
        ("', '.join(words)", []),
    ],
)
def test_it_knows_a_wait_without_an_end(code: str, names: list[str]) -> None:
    assert [name for name, _ in unending(ast.parse(code))] == names
