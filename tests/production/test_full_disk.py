"""A disk that is full: nothing is accepted that could not be kept, and space heals it.

The disk is a small file system in memory, which takes the right to mount one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.cast import Letter, Player, write
from tests.conftest import LiveHub
from tests.disks import Disk, NoMount, mounted_disk
from tests.identities import enrol, player
from tests.needs import missing
from tests.processes import HubProcess, start_hub
from tests.production.fleet import wait_until
from tests.services import PrivatePostgres
from tests.wire import Wire

SQLITE_DISK_MIB = 24
POSTGRES_DISK_MIB = 160  # a new cluster has 40, and as much again of its log
MOST_TRACEBACKS = 40  # of all kinds; each is written once a minute
FILLER = "x" * 100_000
IMPATIENT = {"DJANGO_SETTINGS_MODULE": "tests.production.impatient"}


@pytest.fixture
def mount() -> Iterator[Callable[[int], Disk]]:
    """Mounts disks of so many MiB, where PostgreSQL's account gets to them too."""
    with ExitStack() as mounted:

        def mount(size: int) -> Disk:
            try:
                return mounted.enter_context(mounted_disk(size))
            except NoMount as why:
                missing(str(why))

        yield mount


def test_it_accepts_nothing_that_sqlite_has_no_room_for(
    mount: Callable[[int], Disk], tmp_path: Path
) -> None:
    disk = mount(SQLITE_DISK_MIB)
    hub = start_hub(disk.folder / "data", env=IMPATIENT)
    try:
        _fill_and_free(hub, disk, enrol(hub, 2, tmp_path / "identities", IMPATIENT))
    finally:
        assert hub.stop() == 0


def test_it_accepts_nothing_that_postgresql_has_no_room_for(
    mount: Callable[[int], Disk], tmp_path: Path
) -> None:
    """PostgreSQL itself may end, where there is no room for its log; it is started again."""
    disk = mount(POSTGRES_DISK_MIB)
    with PrivatePostgres(parent=disk.folder) as postgres:
        env = {**IMPATIENT, "ATP_DATABASE_URL": postgres.url}
        hub = start_hub(tmp_path / "data", env=env)
        try:
            identities = enrol(hub, 2, tmp_path / "identities", env)
            _fill_and_free(hub, disk, identities, freed=postgres.start)
        finally:
            assert hub.stop() == 0


def _fill_and_free(
    hub: HubProcess,
    disk: Disk,
    identities: Sequence[Path],
    freed: Callable[[], None] = lambda: None,
) -> None:
    """Write until the disk is full, and go on when it isn't; the reader gets what was accepted."""
    alice, bob = map(player, identities)
    sender = Sender(hub, alice, bob)
    assert sender.send() == "accepted"
    disk.fill()
    try:
        wait_until(lambda: sender.send() == "busy", seconds=60)
        assert hub.is_running()
        wait_until(lambda: sender.send() != "accepted" and _not_well(hub) == ["database"])
    finally:
        disk.free()
    freed()
    wait_until(lambda: sender.send() == "accepted", seconds=60)
    wait_until(lambda: _not_well(hub) == [])
    assert hub.output.count("Traceback") < MOST_TRACEBACKS
    sender.close()
    with Wire.log_in(LiveHub(hub.url), bob) as bobs:
        arrived = []
        for seq in range(1, len(sender.accepted) + 1):
            mail = bobs.mail()
            assert mail["seq"] == seq
            arrived.append(mail["ATP"]["messageId"])
    assert arrived == sender.accepted


def _not_well(hub: HubProcess) -> list[str]:
    """What `/readyz` names."""
    return list(httpx.get(f"{hub.url}/readyz", timeout=20).json()["failed"])


class Sender:
    """Sends large envelopes one by one, each until it is accepted, in a new session if need be."""

    def __init__(self, hub: HubProcess, agent: Player, target: Player) -> None:
        self._hub, self._agent, self._target = LiveHub(hub.url), agent, target
        self._wire: Wire | None = None
        self._letter = self._next()
        self.accepted: list[str] = []

    def send(self) -> str:
        """The receipt's status; none where the session ended or could not be opened."""
        try:
            if self._wire is None:
                self._wire = Wire.log_in(self._hub, self._agent)
            status = str(self._wire.submit(self._letter)["status"])
        except AssertionError:  # closed: a full disk holds no lease either
            self.close()
            return ""
        if status == "accepted":
            self.accepted.append(self._letter.message_id)
            self._letter = self._next()
        return status

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _next(self) -> Letter:
        return write(self._agent, self._target, data={"filler": FILLER}, lifetime=600)
