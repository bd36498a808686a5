"""The version of the package: in Python, on the command line, and in each request to a hub."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import tomllib
from typing import Any

import atp
from atp.cli import main
from atp.version import USER_AGENT
from tests.sdk.fake_hub import FakeHub
from tests.sdk.worlds import SocketWorld
from tests.sources import ROOT


def test_it_is_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert atp.__version__ == project["version"]
    assert USER_AGENT.startswith(f"atp/{atp.__version__} Python/3.")


def test_the_command_tells_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "atp.cli", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"atp {atp.__version__}\n")


async def test_a_socket_tells_it(socket_world: SocketWorld) -> None:
    hub: FakeHub = socket_world.hub
    await socket_world.online("alice")
    (socket,) = hub._sockets
    assert socket.request is not None
    assert socket.request.headers["User-Agent"] == USER_AGENT


def test_an_enrolment_tells_it() -> None:
    heard: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers["User-Agent"])
            self.send_error(404)

        def log_message(self, *_: Any) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert main(["enroll", "--hub", url, "--agent", "alice"]) == 1
    finally:
        thread.join(10)
        server.server_close()
    assert heard == [USER_AGENT]
