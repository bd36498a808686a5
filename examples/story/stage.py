"""The hub of the story: one that runs already, or one that is started for it."""

from __future__ import annotations

import getpass
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from examples.story.voice import StoryError, Voice

__all__ = ["Stage", "open_stage"]

PORT_DEFAULT: Final = "8000"  # the default of the hub
OFFICER_DEFAULT: Final = "officer"  # the name of the first officer of a new hub
START_SECONDS: Final = 60.0  # for a first start with migrations
STOP_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.1
HTTP_SECONDS: Final = 5.0
MANAGE: Final = Path(__file__).resolve().parents[2] / "manage.py"

_PASSWORD: Final = re.compile(r"^ +password +(\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stage:
    """A running hub, an officer's account on it, and a folder for the agents' files."""

    url: str
    hub_id: str
    officer: str
    folder: Path
    suffix: str  # of every name, so that the story can run again on the same hub
    password: str = field(repr=False)


@contextmanager
def open_stage(voice: Voice) -> Iterator[Stage]:
    """Yield the hub on ATP_PORT; if none runs, start one in a temporary folder.

    Raises `StoryError` if no hub can be used, or if there is no account to sign in with.
    """
    url = f"http://127.0.0.1:{os.environ.get('ATP_PORT', '').strip() or PORT_DEFAULT}"
    suffix = secrets.token_hex(3)
    with TemporaryDirectory(prefix="atp-story-") as temporary:
        folder = Path(temporary)
        hub_id = _find_hub(url)
        if hub_id:
            voice.title(f"A story of trust, on {hub_id}, which runs at {url}")
            name, password = _ask_account(url)
            yield Stage(url, hub_id, name, folder, suffix, password)
            return
        with _started_hub(url, folder / "hub") as password:
            hub_id = _find_hub(url)
            voice.title(f"A story of trust, on {hub_id}, started for it at {url}")
            yield Stage(url, hub_id, OFFICER_DEFAULT, folder, suffix, password)


def _find_hub(url: str) -> str:
    """Return the id of the hub at `url`; "" if no server listens there."""
    try:
        answer = httpx.get(f"{url}/api/v1/hub", timeout=HTTP_SECONDS, trust_env=False)
        hub_id = answer.json()["hub"]
    except httpx.ConnectError:
        return ""
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
        raise StoryError(f"what answers at {url} is no hub; set ATP_PORT to a hub's port") from exc
    return str(hub_id)


def _ask_account(url: str) -> tuple[str, str]:
    """Return name and password of an officer, from the environment or the terminal."""
    name = os.environ.get("ATP_OFFICER", "").strip() or OFFICER_DEFAULT
    password = os.environ.get("ATP_OFFICER_PASSWORD", "")
    if password:
        return name, password
    if not sys.stdin.isatty():
        raise StoryError(
            f"A hub runs at {url}, and the story needs an officer of it: set ATP_OFFICER and"
            " ATP_OFFICER_PASSWORD, or set ATP_PORT to a free port to tell it on a hub of its own."
        )
    return name, getpass.getpass(f"Password of {name} at {url}: ")


@contextmanager
def _started_hub(url: str, data: Path) -> Iterator[str]:
    """Run a hub on a new data folder; yield the first officer's password."""
    if not MANAGE.exists():
        raise StoryError(f"No hub runs at {url}, and only its own checkout can start one.")
    data.mkdir()
    log = data.with_suffix(".log")
    process = _launch(url.rpartition(":")[2], data, log)
    try:
        _await_ready(url, process, log)
        found = _PASSWORD.search(log.read_text(encoding="utf-8"))
        if found is None:
            raise StoryError("the hub started but printed no officer's password")
        yield found.group(1)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _launch(port: str, data: Path, log: Path) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATP_")}
    kept.pop("DJANGO_SETTINGS_MODULE", None)
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603  # this very interpreter, and the hub beside this file
            [sys.executable, str(MANAGE), "hub"],
            env={**kept, "ATP_DATA_DIR": str(data), "ATP_PORT": port},
            cwd=MANAGE.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the story only, which then stops the hub
        )


def _await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = httpx.get(f"{url}/readyz", timeout=HTTP_SECONDS, trust_env=False)
            if answer.status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(POLL_SECONDS)
    log_end = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
    raise StoryError(f"the hub did not start: {log_end}")
