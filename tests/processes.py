"""Start hubs as processes, for tests that kill them or read their output."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import httpx

from atp_site import env as site_env
from tests.sources import ROOT

START_SECONDS = 40  # for a first start with migrations, on a busy machine
STOP_SECONDS = 15
SHARED_ENGINES = {"ATP_DATABASE_URL", "ATP_BROKER_URL"}

_PASSWORD = re.compile(r"^  password  (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HubProcess:
    """A running `manage.py hub`."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/agents/"

    @property
    def output(self) -> str:
        """The output so far, of both streams."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def officer_password(self) -> str:
        """The first officer's password, which only the first start prints."""
        found = _PASSWORD.search(self.output)
        assert found is not None, self.output
        return found.group(1)

    def kill(self) -> None:
        """Kill the hub with SIGKILL."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the hub; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def is_running(self) -> bool:
        return self.process.poll() is None


def start_hub(
    data_dir: Path, port: int | None = None, env: Mapping[str, str] | None = None
) -> HubProcess:
    """Start a hub on `data_dir` and wait until it is ready; embedded unless `env` sets engines."""
    started = launch_hub(data_dir, port, env)
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(started.url):
        if not started.is_running() or time.monotonic() > deadline:
            started.kill()
            raise AssertionError(f"the hub did not start:\n{started.output}")
        time.sleep(0.05)
    return started


def launch_hub(
    data_dir: Path, port: int | None = None, env: Mapping[str, str] | None = None
) -> HubProcess:
    """Start a hub and return at once, for tests of the start."""
    port = port or free_port()
    data_dir.mkdir(parents=True, exist_ok=True)
    variables = hub_environment(data_dir, port, env or {})
    with NamedTemporaryFile(dir=data_dir.parent, suffix=".log", delete=False) as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "hub"],
            cwd=ROOT,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C must stop the tests only
        )
    return HubProcess(process, data_dir, port, Path(output.name))


def manage(
    arguments: Sequence[str], data_dir: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run another command of `manage.py` to its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=hub_environment(data_dir, free_port(), env or {}),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


def hub_environment(data_dir: Path, port: int, extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment, with no settings of the hub except the given ones.

    A hub on shared engines must be given its secrets: those stored in `data_dir`.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ATP_") and name != "DJANGO_SETTINGS_MODULE"
    }
    return {
        **kept,
        "ATP_DATA_DIR": str(data_dir),
        "ATP_PORT": str(port),
        **_kept_secrets(data_dir, extra),
        **extra,
    }


def free_port() -> int:
    """Return a port that was free a moment ago.

    It is below those that the system gives to clients: one of them might take it until it is used.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _kept_secrets(data_dir: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the secrets in `data_dir` that are not in `given`."""
    named = {}
    for name, (file, size) in site_env.SECRETS.items():
        if not SHARED_ENGINES & given.keys() or {name, f"{name}_FILE"} & given.keys():
            continue
        data_dir.mkdir(parents=True, exist_ok=True)
        site_env.kept_secret(data_dir / file, size=size)
        named[f"{name}_FILE"] = str(data_dir / file)
    return named


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
