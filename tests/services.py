"""Start a PostgreSQL and a Redis for one test, on free ports, which the test may kill.

Their data are in a temporary folder. They survive `kill` and `stop`; `close` removes them. If the
programs are missing, the test is skipped, unless `CI` is set.
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

START_SECONDS = 40  # a killed PostgreSQL replays its log first, on a busy machine
STOP_SECONDS = 15
LOOK_SECONDS = 0.05
MOST_CONNECTIONS = 200  # for a fleet with its threads, and connections of dead processes
UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL refuses to run as root


class PrivateService(ABC):
    """One server process with its children and its data folder."""

    def __init__(self, *, port: int | None = None, parent: Path | None = None) -> None:
        """`parent` is the folder of the temporary folder; the system's if it is `None`."""
        self.port = port or free_port()
        prefix = f"atp-{type(self).__name__.lower()}-"
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
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
        """The URL for clients; it stays the same after a restart."""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pids(self) -> list[int]:
        """Return the process of the server and its children, the server first."""
        return [process.pid for process in self._family()]

    def start(self) -> None:
        """Start the server on its data, and wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.is_running:  # a killed process may hold its port or lock for a moment
                self.launch()
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")[-2000:]
            time.sleep(LOOK_SECONDS)

    def launch(self) -> None:
        """Start the server on its data, without waiting."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C must stop the tests only
                **_unprivileged(),
            )

    def stop(self) -> None:
        """Stop the server in order."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(self._stop_signal)
            self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Kill the server and its children with SIGKILL; unwritten data is lost."""
        family = self._family()
        for process in family:
            _signal(process, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while any(_lives(process) for process in family) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS / 10)

    def pause(self) -> None:
        """Stop the server with SIGSTOP: it keeps its connections but does not answer."""
        for process in self._family():
            _signal(process, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the server with SIGCONT."""
        for process in self._family():
            _signal(process, signal.SIGCONT)

    def close(self) -> None:
        """Kill the server and remove its data."""
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
    """A Redis without data on disk: after a kill or stop it is empty."""

    def __init__(self, *, port: int | None = None) -> None:
        self._program = _program("redis-server", folders=())
        super().__init__(port=port)
        give_away(self.folder)

    @property
    def url(self) -> str:
        """The URL of its database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def database(self, number: int) -> str:
        """Return the URL of one of its sixteen databases."""
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
    """A PostgreSQL that writes to the disk at every commit, as in production."""

    _stop_signal = signal.SIGINT  # "fast" shutdown: ends sessions and writes a checkpoint

    def __init__(self, *, port: int | None = None, parent: Path | None = None) -> None:
        folders = (_bin_folder(), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
        self._program = _program("postgres", folders=folders)
        initdb = _program("initdb", folders=folders)
        super().__init__(port=port, parent=parent)
        give_away(self.folder)
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
        """The URL of its database `postgres`, as a superuser."""
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
    """Return the path of a server program. If it is missing, skip the test; in CI, fail."""
    for folder in folders:
        if (folder / name).is_file():
            return str(folder / name)
    return need_program(name)


def _bin_folder() -> Path:
    """Return the folder of PostgreSQL's programs; a folder without them if pg_config is missing."""
    asked = shutil.which("pg_config")
    if asked is None:
        return Path("/nonexistent")
    told = subprocess.run(
        [asked, "--bindir"], capture_output=True, text=True, check=False, timeout=60
    )
    return Path(told.stdout.strip())


def _account() -> pwd.struct_passwd | None:
    """Return the account for servers if the tests run as root."""
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


def give_away(folder: Path) -> None:
    """Make the account of the servers the owner of a folder, if the tests run as root."""
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
