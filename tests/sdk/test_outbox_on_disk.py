"""What was sent while the hub was away survives the death of the agent's own process."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atp import ATPClient, IAgentIdentity, PrivateKey, WebSocketTransport
from atp.agent.outbox_file import OutboxFile
from atp.errors import (
    ATPError,
    FlowTimeout,
    OutboxFull,
    OutboxInUse,
    OutboxUnusable,
    SessionClosed,
    SessionTransport,
)
from atp.trust.envelope import Envelope, new_document, parse_envelope, sign_envelope
from atp.types import MessageType
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld
from tests.sources import ROOT

KEY = PrivateKey.generate()
HUB = "hub-1"
SENT = 5
PATIENCE_SECONDS = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alice.outbox"


# --- A process that is killed --------------------------------------------------------------------


async def test_it_sends_after_a_kill_what_was_sent_while_the_hub_was_away(
    socket_world: SocketWorld, path: Path
) -> None:
    """kill -9 of a real second process; the next start sends the same bytes, in order, once."""
    hub = socket_world.hub
    bob, heard = await _listening(socket_world)
    key = hub.enrol("alice")
    await hub.kill()
    for first in (1, SENT + 1):
        said = await asyncio.to_thread(
            _send_and_die, socket_world, path, key, first, first + SENT - 1
        )
        assert len(said) == SENT
        assert all("is kept in the outbox" in line for line in said), said
    signed = [envelope.canonical for envelope in _stored(path, hub.id)]
    assert len(signed) == 2 * SENT

    await hub.start()
    await until(lambda: bob.get_trust_status()["connected"])
    alice = _client(socket_world, key, path)
    await alice.connect()
    await until(lambda: len(heard) == 2 * SENT)
    await until(lambda: alice.get_trust_status()["unreceipted"] == 0)
    assert heard == list(range(1, 2 * SENT + 1))
    assert [hub.bytes_of[parse_envelope(data).message_id] for data in signed] == signed
    await alice.disconnect()
    assert _stored(path, hub.id) == []


async def test_it_sends_again_what_was_killed_before_its_receipt(
    socket_world: SocketWorld, path: Path
) -> None:
    """The hub has some of them: it hears the same bytes again, and nobody gets them twice."""
    hub = socket_world.hub
    _, heard = await _listening(socket_world)
    key = hub.enrol("alice")
    hub.lose_receipts = 1_000
    await asyncio.to_thread(_send_and_die, socket_world, path, key, 1, SENT)
    assert hub.accepted
    hub.lose_receipts = 0

    alice = _client(socket_world, key, path)
    await alice.connect()
    await until(lambda: alice.get_trust_status()["unreceipted"] == 0)
    await until(lambda: len(heard) == SENT)
    await alice.send_notification("bob", "the end")
    await until(lambda: heard[-1] == "the end")
    assert heard == [*range(1, SENT + 1), "the end"]


async def test_a_restarted_caller_repeats_its_message_by_its_id(
    socket_world: SocketWorld, path: Path
) -> None:
    """The bytes are still in the outbox, so the same id with the same content is no conflict."""
    hub, key = socket_world.hub, socket_world.hub.enrol("alice")
    await socket_world.online("bob")
    options = {"message_id": str(uuid.uuid4()), "timeout": 100}
    await hub.kill()
    first = _client(socket_world, key, path)
    with pytest.raises(ATPError, match="is kept in the outbox"):
        await first.send_notification("bob", "once", options)
    await first.disconnect()

    await hub.start()
    second = _client(socket_world, key, path)
    receipt = await second.send_notification("bob", "once", {**options, "timeout": 20_000})
    assert (receipt.status, receipt.message_id) == ("accepted", options["message_id"])
    assert len(hub.accounts["bob"].streams["mail"]) == 1


def _send_and_die(
    world: SocketWorld, path: Path, key: PrivateKey, first: int, last: int
) -> list[str]:
    """Run a process that sends these numbers, kill it, and return what it said of each."""
    pem = path.with_suffix(".pem")
    pem.write_bytes(key.to_pem())
    numbers = ("bob", str(first), str(last))
    arguments = [world.hub.url, world.hub.id, str(pem), str(path), *numbers]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sdk.offline_sender", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = list(iter(process.stdout.readline, "done\n"))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_SECONDS)
    return lines


# --- What the caller sees ------------------------------------------------------------------------


async def test_a_send_returns_the_receipt_and_leaves_nothing(
    socket_world: SocketWorld, path: Path
) -> None:
    alice = await socket_world.agent("alice", outbox=path)
    await socket_world.online("bob")
    assert (await alice.send_notification("bob", "hello")).status == "accepted"
    assert (await alice.broadcast("all")).recipients == 1
    await alice.disconnect()
    assert _stored(path, socket_world.hub.id) == []


async def test_a_timeout_says_that_the_message_is_kept(
    socket_world: SocketWorld, path: Path
) -> None:
    """The connection broke while the client ran; it sends the message by itself when it is back."""
    alice = await socket_world.online("alice", outbox=path)
    _, heard = await _listening(socket_world)
    await socket_world.hub.kill()
    await until(lambda: not alice.get_trust_status()["connected"])
    with pytest.raises(ATPError, match="is kept in the outbox") as caught:
        await alice.send_notification("bob", 1, {"timeout": 100})
    assert caught.value.code == "flow.timeout"
    await socket_world.hub.start()
    await until(lambda: heard == [1])


async def test_a_hub_that_is_away_at_the_start_is_told_and_the_message_kept(
    socket_world: SocketWorld, path: Path
) -> None:
    alice = await socket_world.agent("alice", outbox=path)
    await socket_world.hub.kill()
    with pytest.raises(FlowTimeout, match="is kept in the outbox"):
        await alice.send_notification("bob", 1, {"timeout": 300})
    assert [envelope.data for envelope in await _stored_by(alice, path)] == [1]
    await socket_world.hub.start()


async def test_a_first_connection_that_fails_frees_the_file(
    socket_world: SocketWorld, path: Path
) -> None:
    """`async with` does not disconnect what could not connect."""
    alice = await socket_world.agent("alice", outbox=path)
    await socket_world.hub.kill()
    with pytest.raises(SessionTransport):
        await alice.connect()
    assert _stored(path, socket_world.hub.id) == []
    await socket_world.hub.start()
    await alice.connect()


async def test_a_closed_client_stores_nothing(socket_world: SocketWorld, path: Path) -> None:
    alice = await socket_world.online("alice", outbox=path)
    await alice.disconnect()
    with pytest.raises(SessionClosed) as caught:
        await alice.send_notification("bob", 1)
    assert "kept" not in caught.value.detail
    assert _stored(path, socket_world.hub.id) == []


async def test_a_refused_message_is_not_kept(socket_world: SocketWorld, path: Path) -> None:
    alice = await socket_world.online("alice", outbox=path)
    with pytest.raises(ATPError) as caught:
        await alice.send_notification("nobody", 1)
    assert caught.value.code == "recipient.unavailable"
    assert "kept" not in caught.value.detail
    assert await _stored_by(alice, path) == []


async def test_a_cancelled_send_is_kept_and_says_so(socket_world: SocketWorld, path: Path) -> None:
    alice = await socket_world.online("alice", outbox=path)
    await socket_world.hub.kill()
    call = asyncio.create_task(alice.send_notification("bob", 1))
    await until(lambda: alice.get_trust_status()["unreceipted"])
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    assert "is kept in the outbox" in caught.value.__notes__[-1]
    assert [envelope.data for envelope in await _stored_by(alice, path)] == [1]
    await socket_world.hub.start()


async def test_a_send_that_is_cut_by_a_disconnect_says_that_it_is_kept(
    socket_world: SocketWorld, path: Path
) -> None:
    alice = await socket_world.online("alice", outbox=path)
    await socket_world.hub.kill()
    call = asyncio.create_task(alice.send_notification("bob", 1))
    await until(lambda: alice.get_trust_status()["unreceipted"])
    stored = await _stored_by(alice, path)
    with pytest.raises(ATPError, match="is kept in the outbox") as caught:
        await call
    assert caught.value.code == "session.closed"
    assert [envelope.data for envelope in stored] == [1]
    await socket_world.hub.start()


async def test_requests_are_not_kept(socket_world: SocketWorld, path: Path) -> None:
    """Their callers die with the process: nobody would read the answer."""
    alice = await socket_world.online("alice", outbox=path)
    await socket_world.hub.kill()
    with pytest.raises(ATPError) as caught:
        await alice.send_request("bob", 1, {"timeout": 100})
    assert "kept" not in caught.value.detail
    assert await _stored_by(alice, path) == []
    await socket_world.hub.start()


async def test_it_drops_what_has_expired_with_a_log_line(
    socket_world: SocketWorld, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub, key = socket_world.hub, socket_world.hub.enrol("alice")
    old, new = _envelope("old", hub=hub.id), _envelope("new", hub=hub.id)
    _fill(path, [(old, 1.0), (new, 4e9)], hub_id=hub.id)
    alice = _client(socket_world, key, path)
    await alice.connect()
    assert f"dropped {old.message_id}" in caplog.text
    await until(lambda: hub.received)
    assert old.message_id not in hub.received
    assert new.message_id in hub.received


async def test_it_logs_a_refusal_that_nobody_waits_for(
    socket_world: SocketWorld, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Signed by a key that the hub does not know any more: it is not sent again and again."""
    hub, key = socket_world.hub, socket_world.hub.enrol("alice")
    caplog.set_level(logging.WARNING, logger="atp")
    stale = _envelope("stale", hub=hub.id)
    _fill(path, [(stale, 4e9)], hub_id=hub.id)
    alice = _client(socket_world, key, path)
    await alice.connect()
    await until(lambda: stale.message_id in caplog.text)
    assert "invalid key.unknown" in caplog.text
    assert await _stored_by(alice, path) == []


# --- The file ------------------------------------------------------------------------------------


def test_only_its_owner_may_read_the_file(path: Path) -> None:
    with _opened(path):
        assert path.stat().st_mode & 0o777 == 0o600
        for beside in path.parent.glob(f"{path.name}-*"):
            assert beside.stat().st_mode & 0o777 == 0o600


def test_it_narrows_a_file_that_others_may_read(path: Path) -> None:
    _fill(path, [])
    path.chmod(0o644)
    with _opened(path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_it_keeps_the_order_and_the_bytes(path: Path) -> None:
    envelopes = [_envelope(n) for n in range(20)]
    _fill(path, [(envelope, 4e9) for envelope in envelopes])
    with _opened(path) as file:
        file.remove([envelopes[3].message_id, "not there"])
        kept = [envelope for envelope, _ in file.messages()]
    assert kept == envelopes[:3] + envelopes[4:]


def test_rejects_a_second_client_of_one_file(path: Path) -> None:
    """In the same process, and in another one; the lock ends with its process."""
    program = (
        "import pathlib, sys; from atp.agent.outbox_file import OutboxFile\n"
        f"OutboxFile(pathlib.Path(sys.argv[1]), agent='alice', hub_id={HUB!r})"
    )

    def elsewhere() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    with _opened(path):
        with pytest.raises(OutboxInUse, match=r"alice\.outbox"):
            OutboxFile(path, agent="alice", hub_id=HUB)
        assert "OutboxInUse" in elsewhere().stderr
    assert elsewhere().returncode == 0


async def test_rejects_a_second_client_with_the_same_path(
    socket_world: SocketWorld, path: Path
) -> None:
    await socket_world.online("alice", outbox=path)
    other = await socket_world.agent("carol", outbox=path)
    with pytest.raises(OutboxInUse):
        await other.connect()


@pytest.mark.parametrize("owner", [("bob", HUB), ("alice", "hub-2")])
def test_rejects_the_outbox_of_another_agent_or_hub(path: Path, owner: tuple[str, str]) -> None:
    _fill(path, [])
    agent, hub_id = owner
    with pytest.raises(OutboxUnusable, match="is of alice at hub-1"):
        OutboxFile(path, agent=agent, hub_id=hub_id)


def _overwrite_header(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def _cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip_a_byte_of_a_message(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"data":"0', b'"data":"1', 1))


def _be_of_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (n)")
    database.close()


@pytest.mark.parametrize(
    "damage",
    [_overwrite_header, _cut_in_half, _flip_a_byte_of_a_message, _be_of_another_program],
)
def test_rejects_a_damaged_file_and_says_what_to_do(path: Path, damage: Any) -> None:
    _fill(path, [(_envelope(f"{n:0500}"), 4e9) for n in range(50)])
    damage(path)
    before = path.read_bytes()
    with (
        pytest.raises(OutboxUnusable, match=r"Move the file away|give another path"),
        _opened(path) as file,
    ):
        file.messages()
    assert path.read_bytes() == before  # nothing was repaired, made or lost


@pytest.mark.parametrize("place", ["not/there", "."])
def test_rejects_a_path_that_is_no_file(tmp_path: Path, place: str) -> None:
    mode = tmp_path.stat().st_mode
    with pytest.raises(OutboxUnusable, match="can't be opened"):
        OutboxFile(tmp_path / place, agent="alice", hub_id=HUB)
    assert tmp_path.stat().st_mode == mode


@pytest.mark.parametrize(("messages", "size"), [(2, 10**9), (10**9, 2_000)])
def test_rejects_more_than_its_limit(path: Path, messages: int, size: int) -> None:
    file = OutboxFile(path, agent="alice", hub_id=HUB, most_messages=messages, most_bytes=size)
    file.put(_envelope("x"), 4e9)
    file.put(_envelope("y"), 4e9)
    with pytest.raises(OutboxFull, match="has 2 messages"):
        file.put(_envelope("z" * 1_000), 4e9)
    file.remove([file.messages()[0][0].message_id])
    file.put(_envelope("z"), 4e9)
    assert [envelope.data for envelope, _ in file.messages()] == ["y", "z"]
    file.close()


def test_rejects_a_message_for_which_the_disk_has_no_room(path: Path) -> None:
    """The kernel refuses to let the file grow; what was stored before is whole."""
    with _opened(path) as file:
        file.put(_envelope("small"), 4e9)
        with _no_file_beyond(200_000), pytest.raises(OutboxFull, match="Free space"):
            _put_many(file, "x" * 100_000)
    with _opened(path) as file:
        stored = [envelope.data for envelope, _ in file.messages()]
        assert stored[0] == "small"
        assert set(stored[1:]) <= {"x" * 100_000}
        file.put(_envelope("room again"), 4e9)


def _put_many(file: OutboxFile, data: str) -> None:
    for _ in range(100):
        file.put(_envelope(data), 4e9)


async def test_a_message_that_cannot_be_stored_is_not_sent(
    socket_world: SocketWorld, path: Path
) -> None:
    alice = await socket_world.online("alice", outbox=path)
    with _no_file_beyond(100_000), pytest.raises(OutboxFull, match="was not sent"):
        await alice.send_notification("bob", "x" * 300_000)
    assert not socket_world.hub.received
    assert alice.get_trust_status()["unreceipted"] == 0


@contextmanager
def _no_file_beyond(size: int) -> Iterator[None]:
    """Let the system refuse each write of this process beyond `size` bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@contextmanager
def _opened(path: Path, *, hub_id: str = HUB) -> Iterator[OutboxFile]:
    file = OutboxFile(path, agent="alice", hub_id=hub_id)
    try:
        yield file
    finally:
        file.close()


def _fill(path: Path, messages: list[tuple[Envelope, float]], *, hub_id: str = HUB) -> None:
    with _opened(path, hub_id=hub_id) as file:
        for envelope, expires_at in messages:
            file.put(envelope, expires_at)


def _stored(path: Path, hub_id: str) -> list[Envelope]:
    with _opened(path, hub_id=hub_id) as file:
        return [envelope for envelope, _ in file.messages()]


async def _stored_by(client: ATPClient, path: Path) -> list[Envelope]:
    await client.disconnect(timeout_seconds=0.1)
    return _stored(path, client.transport.hub_id)


def _client(world: SocketWorld, key: PrivateKey, path: Path) -> ATPClient:
    transport = WebSocketTransport(world.hub.url, hub_id=world.hub.id)
    client = ATPClient(IAgentIdentity("alice"), None, key, transport=transport, outbox=path)
    return world.keep(client)


async def _listening(world: SocketWorld) -> tuple[ATPClient, list[Any]]:
    """Return bob, and what he hears, in its order: one handler at a time."""
    bob, heard = await world.agent("bob", max_handlers=1), []
    bob.on_message("notification", lambda envelope: heard.append(envelope.payload["data"]))
    await bob.connect()
    return bob, heard


def _envelope(data: object, *, hub: str = HUB) -> Envelope:
    document = new_document(
        identity=IAgentIdentity("alice"),
        message_type=MessageType.NOTIFICATION,
        target="bob",
        data=data,
    )
    signed = sign_envelope(document, KEY, hub_id=hub, now=1_800_000_000, lifetime_seconds=60)
    return parse_envelope(signed)
