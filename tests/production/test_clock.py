"""The clock of a hub's machine is set back by a minute, and by more, while it runs."""

from __future__ import annotations

import platform
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from atp.wire.timestamps import format_timestamp
from tests.cast import Letter, Player, forged, write
from tests.conftest import LiveHub
from tests.identities import enrol, player
from tests.needs import missing
from tests.processes import HubProcess, start_hub
from tests.wire import Wire

LogIn = Callable[[Player], Wire]

SOON_SECONDS = 20.0
MINUTE = 60  # seconds; as far as `iat` may be ahead (docs/protocol.md#tokens)


class Clock:
    """The clock of a process that was started in `environment`; nothing else's."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file = file
        self.set_back(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # which no clock that is set moves
        }

    def set_back(self, seconds: int) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"-{seconds}\n")
        draft.replace(self._file)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock") / "offset", _library())


@pytest.fixture(scope="module")
def hub(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    hub = start_hub(tmp_path_factory.mktemp("hub") / "data", env=clock.environment)
    yield hub
    clock.set_back(0)
    assert hub.stop() == 0


@pytest.fixture
def log_in(hub: HubProcess) -> Iterator[LogIn]:
    """Opens sockets of agents, which are closed after the test."""
    with ExitStack() as opened:
        yield lambda agent: opened.enter_context(Wire.log_in(LiveHub(hub.url), agent))


@pytest.fixture(scope="module")
def pair(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> list[Player]:
    """Return Alice and Bob, enrolled an hour ago."""
    folder = tmp_path_factory.mktemp("identities")
    earlier = Clock(folder / "offset", _library())
    earlier.set_back(60 * MINUTE)
    return [player(identity) for identity in enrol(hub, 2, folder, earlier.environment)]


def test_it_goes_on_when_its_clock_is_set_back_by_a_minute(
    hub: HubProcess, clock: Clock, pair: list[Player], log_in: LogIn
) -> None:
    """Sessions stay, others come in, dates are judged by the clock as it is now."""
    alice, bob = pair
    alices = log_in(alice)
    assert alices.submit(_of_a_while_ago(alice, bob))["status"] == "expired"
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    clock.set_back(MINUTE)
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    assert alices.submit(_of_a_while_ago(alice, bob))["status"] == "accepted"
    bobs = log_in(bob)
    assert [bobs.mail()["seq"] for _ in range(3)] == [1, 2, 3]

    clock.set_back(0)
    _submit_in_a_new_session(log_in, alice, write(alice, bob))
    _assert_the_trail_goes_forward(hub)


def test_it_takes_no_attestation_of_the_future(
    hub: HubProcess, clock: Clock, pair: list[Player], log_in: LogIn, tmp_path: Path
) -> None:
    """An attestation from a minute that the clock has not reached again is not valid yet."""
    carol = player(enrol(hub, 1, tmp_path)[0])
    clock.set_back(MINUTE)
    assert log_in(carol).submit(write(carol, pair[0]))["status"] == "denied"

    clock.set_back(0)
    _submit_in_a_new_session(log_in, carol, write(carol, pair[0]))


def test_it_is_right_again_after_a_clock_that_was_further_off(
    hub: HubProcess, clock: Clock, pair: list[Player], log_in: LogIn
) -> None:
    """An envelope that seemed to be from the future is not stored and can be sent again."""
    alice, bob = pair
    letter, alices = write(alice, bob), log_in(alice)
    clock.set_back(2 * MINUTE)
    receipt = alices.submit(letter)
    assert (receipt["status"], receipt["code"]) == ("invalid", "clock.not_yet")

    clock.set_back(0)
    _submit_in_a_new_session(log_in, alice, letter)
    _assert_the_trail_goes_forward(hub)


def _submit_in_a_new_session(log_in: LogIn, agent: Player, letter: Letter) -> None:
    """The clock went forward by more than a lease, which ends sessions until it is renewed."""
    deadline = time.monotonic() + SOON_SECONDS
    while True:
        try:
            receipt = log_in(agent).submit(letter)
        except AssertionError:  # session.fenced
            assert time.monotonic() < deadline, "no new session takes the message"
        else:
            assert receipt["status"] == "accepted"
            return


def _of_a_while_ago(sender: Player, target: Player) -> Letter:
    """An envelope that ran out, but not by a clock that is a minute late."""
    then = time.time() - 40

    def date(document: dict[str, Any]) -> None:
        document["timestamp"] = format_timestamp(then)

    return forged(sender, target, before=date, now=then, lifetime_seconds=20)


def _assert_the_trail_goes_forward(hub: HubProcess) -> None:
    with sqlite3.connect(hub.data_dir / "hub.sqlite3") as database:
        rows = database.execute("SELECT time FROM registry_entry ORDER BY position").fetchall()
    assert len(rows) > 5
    assert rows == sorted(rows)


def _library() -> Path:
    """The part of libfaketime that is preloaded; its wheel has it for Linux on x86-64 only."""
    package = find_spec("libfaketime")
    assert package is not None
    assert package.origin is not None
    library = Path(package.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    if sys.platform != "linux" or platform.machine() != "x86_64" or not library.exists():
        missing("no libfaketime for this machine")
    return library
