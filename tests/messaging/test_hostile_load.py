"""Floods, deaf sockets and half-open connections: the hub's memory is bounded, others go on.

The first tests look at one bound each, in the hub of the run. The last ones let whole attacks
loose on a hub of their own, and weigh it. What others feel of them is measured by
`make bench ONLY=hostile`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from benchmarks.hostile import Memory, attacking
from messaging.models import Envelope
from messaging.node import connections
from messaging.node.process_node import process_node
from messaging.wire import sockets
from tests.cast import Player, make_agent, write
from tests.conftest import LiveHub
from tests.identities import enrol, player
from tests.messaging.conftest import LogIn, Scene, until
from tests.processes import HubProcess, start_hub
from tests.wire import SUBPROTOCOL, Wire, dial

MIB = 2**20
CONTINUATION, TEXT, PING = 0x0, 0x1, 0x9  # RFC 6455, 5.2
SOCKET_BUFFERS_BYTES = 24 * MIB  # what two kernels' ends of a loopback connection may hold
SECONDS = 1.5  # of an attack
UPGRADE = (
    "GET /ws/agents/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
).encode()


# --- One bound each ------------------------------------------------------------------------------


def test_it_reads_nothing_of_an_agent_that_does_not_read(
    scene: Scene, log_in: LogIn, mallory: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every envelope of its would add a receipt to what waits for it; it gets one when it reads."""
    monkeypatch.setattr(connections, "OUTBOX_BYTES", 200_000)
    deaf = log_in(mallory, read_ahead=1, buffer_bytes=4_096)
    _fill_outbox(log_in, mallory)
    letter = write(mallory, make_agent())
    deaf.send(letter)
    scene.victims_saw_nothing()
    scene.victims_saw_nothing()

    assert not Envelope.objects.filter(message_id=letter.message_id).exists()
    assert deaf.receipt(letter)["status"] == "accepted"


def test_it_answers_no_more_pings_than_are_read(scene: Scene, hub: LiveHub) -> None:
    with dial(hub.url, buffer_bytes=4_096) as stranger:
        stranger.sendall(UPGRADE)
        heard = b""
        while b"challenge" not in heard:
            heard += stranger.recv(4_096)
        written = _write_until_it_blocks(stranger, _frame(PING, b"x" * 125) * 500)
        scene.victims_saw_nothing()

    assert written < SOCKET_BUFFERS_BYTES


def test_rejects_a_message_in_very_many_fragments(
    scene: Scene, log_in: LogIn, mallory: Player
) -> None:
    """Empty ones do not count against a message's size."""
    wire = log_in(mallory)
    with suppress(OSError):  # it may be cut meanwhile
        wire.socket.socket.sendall(_frame(TEXT, b"", final=False))
        wire.socket.socket.sendall(_frame(CONTINUATION, b"", final=False) * 300)

    assert wire.ended()[1] in {1006, 1009}
    scene.victims_saw_nothing()


def test_it_lets_go_of_a_socket_whose_agent_does_not_take_the_rest(
    log_in: LogIn, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or who logs in again and again, and never reads, would leave one behind each time."""
    monkeypatch.setattr(sockets, "LINGER_SECONDS", 0.2)
    deaf = log_in(bob, read_ahead=1, buffer_bytes=4_096)
    _fill_outbox(log_in, bob)
    port = deaf.socket.socket.getsockname()[1]
    log_in(bob)

    until(lambda: port not in _peers(), "the end of the older socket")
    deaf.cut()


HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
BEGUN = HEALTHZ[:-2]


@pytest.mark.parametrize(("earlier", "begun"), [(b"", b""), (b"", BEGUN), (HEALTHZ, BEGUN)])
def test_it_waits_for_no_request_for_ever(
    hub: LiveHub, monkeypatch: pytest.MonkeyPatch, earlier: bytes, begun: bytes
) -> None:
    monkeypatch.setattr(sockets, "REQUEST_SECONDS", 1.0)
    with dial(hub.url) as connection:
        if earlier:
            connection.sendall(earlier)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.sendall(begun)
        _read_to_the_end(connection)


def test_rejects_a_request_whose_head_does_not_end(hub: LiveHub) -> None:
    with dial(hub.url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            connection.sendall((b"X-Filler: " + b"x" * 1_000 + b"\r\n") * 20_000)


# --- Whole attacks -------------------------------------------------------------------------------


class Besieged:
    """An embedded hub, and two of its agents that go on while others attack it."""

    def __init__(self, hub: HubProcess, attackers: Path, bystanders: list[Path]) -> None:
        self.hub, self.attackers = hub, attackers
        self._alice, self._bob = map(player, bystanders)
        self._alices = Wire.log_in(LiveHub(hub.url), self._alice)
        self._seq = 0

    def serves(self) -> None:
        """Connected agents keep working, and new agents can log in."""
        with Wire.log_in(LiveHub(self.hub.url), self._bob) as bobs:
            for _ in range(3):
                assert self._alices.submit(write(self._alice, self._bob))["status"] == "accepted"
                self._seq += 1
                while bobs.mail()["seq"] < self._seq:
                    pass  # told again, as its ack had not been written down yet
                bobs.ack(self._seq)


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    folder = tmp_path_factory.mktemp("besieged")
    hub = start_hub(folder / "data")
    try:
        attackers = enrol(hub, 12, folder / "attackers")[0].parent
        yield Besieged(hub, attackers, enrol(hub, 2, folder / "bystanders"))
    finally:
        hub.kill()


@pytest.mark.parametrize(
    ("attacks", "most"),
    [
        (["deaf_flood"], 48 * MIB),
        (["slow_reader"], 64 * MIB),
        (["unread_inbox"], 64 * MIB),
        (["broadcast_flood"], 160 * MIB),
        (["large_envelopes"], 96 * MIB),
        (["half_open", "silent_connections", "half_sent_frames", "large_frames"], 160 * MIB),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_it_goes_on_in_bounded_memory(besieged: Besieged, attacks: list[str], most: int) -> None:
    memory = Memory(besieged.hub.process.pid)
    with memory.watched(), ExitStack() as under_way:
        begun = [
            under_way.enter_context(
                attacking(name, besieged.attackers, seconds=SECONDS, waiting=2_000)
            )
            for name in attacks
        ]
        besieged.serves()
        done = [process.communicate(timeout=60)[0] for process in begun]
    besieged.serves()

    assert all('": 0' not in said for said in done), done
    assert memory.grown < most


def _fill_outbox(log_in: LogIn, deaf: Player) -> None:
    """Send an agent that does not read more than the system and the hub hold for it."""
    sender = make_agent()
    wire = log_in(sender)
    connection = process_node.current().roster.agents[deaf.id]
    while connection.writable:
        letter = write(sender, deaf, data={"filler": "x" * 400_000})
        assert wire.submit(letter)["status"] == "accepted"


# --- Raw bytes -----------------------------------------------------------------------------------


def _frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """Masked with zeroes, which leave it as it is."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + struct.pack("!H", length)
    return bytes([(0x80 if final else 0) | opcode]) + size + bytes(4) + payload


def _write_until_it_blocks(connection: socket.socket, some: bytes) -> int:
    """How many bytes the other end takes before it takes no more for a second."""
    connection.settimeout(1.0)
    written = 0
    with suppress(TimeoutError):
        while written < 2 * SOCKET_BUFFERS_BYTES:
            written += connection.send(some)
    return written


def _read_to_the_end(connection: socket.socket) -> bytes:
    read = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            read += data
    return read


def _peers() -> set[int]:
    """The ports at the other ends of this process's connections."""
    return {c.raddr.port for c in psutil.Process().net_connections("tcp") if c.raddr}


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 100000000000", b"Transfer-Encoding: chunked"],
    ids=["announced", "in chunks"],
)
def test_rejects_a_body_that_would_fill_the_disk(hub: LiveHub, head: bytes) -> None:
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    with dial(hub.url) as connection:
        connection.sendall(b"POST /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head + b"\r\n\r\n")
        if b"Length" in head:
            assert connection.recv(64).startswith(b"HTTP/1.1 413 ")
        with pytest.raises(ConnectionError):
            connection.sendall(chunk * 2_000)


def test_it_waits_for_no_body_for_ever(hub: LiveHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "BODY_SECONDS", 0.2)
    with dial(hub.url) as connection:
        connection.sendall(
            b"POST /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nx"
        )
        _read_to_the_end(connection)
