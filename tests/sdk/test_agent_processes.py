"""Agents as processes of their own: killed, stopped, paused, forked."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atp import ATPClient, IAgentIdentity, InMemoryTransport
from atp.errors import FlowTimeout, SessionForked
from atp.wire.words import DONE
from tests.sdk.fake_hub import FakeHub
from tests.sdk.waiting import until
from tests.sdk.worlds import HubWorld, SocketWorld
from tests.sources import ROOT

NOTIFICATIONS = 200
HANDLER_SECONDS = 0.5
AT_ONCE = 4
SIGNAL_AFTER_SECONDS = 1.0
SHORT_SECONDS = 0.001
END_SECONDS = 20  # the limit for a process to end


class Log:
    """What the agent processes wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()

    def lines(self, what: str) -> list[tuple[str, str]]:
        """The data and the process of each line of one kind."""
        parts = [line.split() for line in self.path.read_text(encoding="utf-8").splitlines()]
        return [(data, pid) for kind, data, pid in parts if kind == what]

    def most_begun(self) -> int:
        """How many handlers of one process ran at once."""
        most, running = 0, 0
        for line in self.path.read_text(encoding="utf-8").splitlines():
            running += {"begun": 1, "ended": -1}.get(line.split()[0], 0)
            most = max(most, running)
        return most


@contextmanager
def agent_process(
    hub: FakeHub, key: Path, log: Log, *, seconds: float
) -> Iterator[subprocess.Popen[str]]:
    """An agent `bob` of the fake hub as a process."""
    with started("bob", hub.url, hub.id, key, log.path, seconds, AT_ONCE) as process:
        yield process


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of `agent_process`; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sdk.agent_process", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=END_SECONDS)


@pytest.fixture
def key(socket_world: SocketWorld, tmp_path: Path) -> Path:
    path = tmp_path / "bob.pem"
    path.write_bytes(socket_world.hub.enrol("bob").to_pem())
    return path


async def ended(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a process; return its output."""
    await until(lambda: process.poll() is not None)
    assert process.stdout is not None
    return process.stdout.read()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_it_loses_no_mail(
    socket_world: SocketWorld, tmp_path: Path, key: Path, number: signal.Signals
) -> None:
    """The given input: 200 notifications, a handler of 0.5 s, four at a time, a signal after 1 s.

    Lost were 192 with SIGKILL, 192 with SIGTERM and 152 with SIGINT. Each must be handled to its
    end, and after a signal that a process can handle, exactly once.
    """
    hub, log = socket_world.hub, Log(tmp_path / "log")
    alice = await socket_world.online("alice")
    sent = [alice.send_notification("bob", n) for n in range(NOTIFICATIONS)]
    await asyncio.gather(*sent)
    with agent_process(hub, key, log, seconds=HANDLER_SECONDS) as first:
        await until(lambda: log.lines("begun"))
        await asyncio.sleep(SIGNAL_AFTER_SECONDS)
        first.send_signal(number)
        printed = await ended(first)
    assert log.most_begun() <= AT_ONCE
    handled = len(log.lines("ended"))
    assert handled < NOTIFICATIONS
    if number != signal.SIGKILL:
        assert first.returncode == 0
        assert "served" in printed
        assert f"handed back to the hub ({NOTIFICATIONS - handled})" in printed
        assert len(log.lines("begun")) == handled  # what ran has finished
    account = hub.accounts["bob"]
    await until(lambda: account.socket is None)
    with agent_process(hub, key, log, seconds=SHORT_SECONDS) as second:
        await until(lambda: account.acked["mail"] == NOTIFICATIONS)
        second.send_signal(signal.SIGTERM)
        await ended(second)
    times = Counter(data for data, _ in log.lines("ended"))
    assert set(times) == {str(n) for n in range(NOTIFICATIONS)}
    if number != signal.SIGKILL:
        assert set(times.values()) == {1}
    assert not account.refused


async def test_it_loses_no_mail_of_the_projects_hub(hub_world: HubWorld, tmp_path: Path) -> None:
    """The row of SIGKILL again, with the hub that counts."""
    log, key = Log(tmp_path / "log"), tmp_path / "key.pem"
    alice, bob = await hub_world.online("alice"), await hub_world.agent("bob")
    agent, player = bob.identity.id, hub_world.player(bob)
    key.write_bytes(player.key.to_pem())
    way = (agent, hub_world.url, player.hub, key, log.path)
    await asyncio.gather(*(alice.send_notification(agent, n) for n in range(NOTIFICATIONS)))
    with started(*way, HANDLER_SECONDS, AT_ONCE) as first:
        await until(lambda: log.lines("begun"))
        await asyncio.sleep(SIGNAL_AFTER_SECONDS)
        first.kill()
        await ended(first)
    handled = {data for data, _ in log.lines("ended")}
    assert len(handled) < NOTIFICATIONS
    with started(*way, SHORT_SECONDS, AT_ONCE) as second:
        await until(lambda: len({data for data, _ in log.lines("ended")}) == NOTIFICATIONS)
        second.send_signal(signal.SIGTERM)
        await ended(second)
    again = [data for data, _ in log.lines("begun") if data in handled]
    assert len(again) <= len(handled) + AT_ONCE  # what was done is not handled again


async def test_it_charges_a_kill_to_what_had_begun(
    socket_world: SocketWorld, tmp_path: Path, key: Path
) -> None:
    hub, log = socket_world.hub, Log(tmp_path / "log")
    account = hub.accounts["bob"]
    alice = await socket_world.online("alice")
    for n in range(8):
        await alice.send_notification("bob", n)
    with agent_process(hub, key, log, seconds=END_SECONDS) as process:
        await until(lambda: len(log.lines("begun")) == AT_ONCE)
        assert len(account.book.begun) == AT_ONCE
        process.kill()
        await ended(process)
    await until(lambda: account.socket is None)
    assert dict(account.book.failures) == {("mail", n): 1 for n in range(1, AT_ONCE + 1)}


async def test_a_second_signal_ends_it_at_once(
    socket_world: SocketWorld, tmp_path: Path, key: Path
) -> None:
    hub, log = socket_world.hub, Log(tmp_path / "log")
    alice = await socket_world.online("alice")
    await alice.send_notification("bob", 1)
    with agent_process(hub, key, log, seconds=END_SECONDS) as process:
        await until(lambda: log.lines("begun"))
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        await ended(process)
        assert process.returncode == -signal.SIGTERM


async def test_a_paused_worker_does_not_run_expired_requests(
    socket_world: SocketWorld, tmp_path: Path, key: Path
) -> None:
    hub, log = socket_world.hub, Log(tmp_path / "log")
    hub.features = (DONE,)  # with `cancel`, it would hear that nobody waits any more
    account = hub.accounts["bob"]
    alice = await socket_world.online("alice")
    with agent_process(hub, key, log, seconds=0.0) as process:
        await until(lambda: account.socket)
        process.send_signal(signal.SIGSTOP)
        # A request whose sender chose the id is not cancelled at its timeout.
        late = {"timeout": 300, "lifetime": 1, "message_id": str(uuid.uuid4())}
        with pytest.raises(FlowTimeout):
            await alice.send_request("bob", "late", late)
        await asyncio.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        await until(lambda: account.acked["mail"] == 1)
        assert (await alice.send_request("bob", "fresh")).data == "fresh"
        process.send_signal(signal.SIGTERM)
        printed = await ended(process)
    assert [data for data, _ in log.lines("asked")] == ["fresh"]
    assert printed.count("expired before its handler could begin") == 1
    assert "Traceback" not in printed


def test_rejects_a_client_that_was_made_before_a_fork() -> None:
    client = ATPClient(IAgentIdentity("bob"), None, "a key", transport=InMemoryTransport())
    parent = os.getpid()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            client._opener.enter()
        except SessionForked as problem:
            os.write(writes, str(problem).encode())
        finally:
            os._exit(0)
    os.close(writes)
    os.waitpid(child, 0)
    told = os.read(reads, 1000).decode()
    os.close(reads)
    assert told.startswith("session.forked: the client of bob was made in process")
    assert str(parent) in told
    assert str(child) in told
    assert issubclass(SessionForked, RuntimeError)
    asyncio.run(_connect(client))  # in its own process it works


async def _connect(client: ATPClient) -> None:
    await client.connect()
    await client.disconnect()
