"""A PostgreSQL and a Redis of a test's own, on free ports of the loopback, to be killed at will.

Their data lie in a temporary folder and outlive `kill` and `stop`; `close` removes them.
Where the programs are missing the test that asks for them skips, unless `CI` is set.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg
import redis

from tests.needs import need_program
from tests.processes import free_port

START_SECONDS = 40  # a PostgreSQL that was killed replays its log first, on a busy machine
STOP_SECONDS = 15
LOOK_SECONDS = 0.05
MOST_CONNECTIONS = 200  # of a fleet with its threads, and those that died a moment ago
UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL refuses to run as root


class PrivateService(ABC):
    """One server process with its children, and the folder it keeps its data in."""

    def __init__(self, *, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"atp-{type(self).__name__.lower()}-"))
        self.log = self.folder / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients reach it; the same after a restart."""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pids(self) -> list[int]:
        """The server's process and its children's, the server first."""
        return [process.pid for process in self._family()]

    def start(self) -> None:
        """Start it on the data it has, and wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.is_running:  # what was killed may hold its port or lock for a moment
                self.launch()
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")[-2000:]
            time.sleep(LOOK_SECONDS)

    def launch(self) -> None:
        """Start it on the data it has, and wait for nothing."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C for the tests is none for it
                **_unprivileged(),
            )

    def stop(self) -> None:
        """Ask it to end in order."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(self._stop_signal)
            self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """`kill -9` of the server and its children; whatever it had not written is lost."""
        family = self._family()
        for process in family:
            _signal(process, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while any(_lives(process) for process in family) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS / 10)

    def pause(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        for process in self._family():
            _signal(process, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        for process in self._family():
            _signal(process, signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    _stop_signal = signal.SIGTERM

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _family(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        try:
            server = psutil.Process(self._process.pid)
            return [server, *server.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


class PrivateRedis(PrivateService):
    """A Redis that keeps nothing on its disk: killed or stopped, it comes back empty."""

    def __init__(self, *, port: int | None = None) -> None:
        self._program = _program("redis-server", folders=())
        super().__init__(port=port)
        _give_away(self.folder)

    @property
    def url(self) -> str:
        """Its database 0; append another number for another."""
        return f"redis://127.0.0.1:{self.port}/0"

    def database(self, number: int) -> str:
        """The URL of one of its sixteen databases."""
        return f"redis://127.0.0.1:{self.port}/{number}"

    def flush(self) -> None:
        """Empty every database."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def _command(self) -> list[str]:
        options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        return [self._program, "--port", str(self.port), *options]

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class PrivatePostgres(PrivateService):
    """A PostgreSQL that writes through to the disk at every commit, as in production."""

    _stop_signal = signal.SIGINT  # "fast": it ends sessions and checkpoints

    def __init__(self, *, port: int | None = None) -> None:
        folders = (_bin_folder(), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
        self._program = _program("postgres", folders=folders)
        initdb = _program("initdb", folders=folders)
        super().__init__(port=port)
        _give_away(self.folder)
        self._data = self.folder / "data"
        subprocess.run(
            [initdb, "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
            cwd=self.folder,
            capture_output=True,
            check=True,
            **_unprivileged(),
            timeout=60,
        )

    @property
    def url(self) -> str:
        """Its own database `postgres`, as a superuser."""
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": MOST_CONNECTIONS,
            "fsync": "on",
            "synchronous_commit": "on",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self._program, "-D", str(self._data), "-p", str(self.port), *options]

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True


def _program(name: str, *, folders: tuple[Path, ...]) -> str:
    """The path of a server's program; its absence is a failure in CI only."""
    for folder in folders:
        if (folder / name).is_file():
            return str(folder / name)
    return need_program(name)


def _bin_folder() -> Path:
    """Where PostgreSQL says that its programs are; a folder without them where it is silent."""
    asked = shutil.which("pg_config")
    if asked is None:
        return Path("/nonexistent")
    told = subprocess.run(
        [asked, "--bindir"], capture_output=True, text=True, check=False, timeout=60
    )
    return Path(told.stdout.strip())


def _account() -> pwd.struct_passwd | None:
    """The account that servers run under where the tests run as root."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _unprivileged() -> dict[str, Any]:
    account = _account()
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _give_away(folder: Path) -> None:
    if (account := _account()) is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
