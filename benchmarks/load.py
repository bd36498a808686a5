"""The load generator, in its own process: senders that sign and receivers that acknowledge.

It uses the SDK's code for handshake, envelopes and frames, but not its client, so that the run
measures the hub. It signs every envelope, waits for every receipt, and counts and acknowledges
every delivery.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
import websockets

from atp import IAgentIdentity, MessageType, PrivateKey, PublicKey
from atp.agent.handshake import Handshake
from atp.trust.envelope import new_document, sign_envelope
from atp.wire.frames import SUBPROTOCOL, Ack, Welcome, serialize_messages

ENVELOPE_BYTES = 800
WINDOW = 128  # envelopes of one sender without a receipt
TOGETHER = 8  # envelopes that a sender makes before it reads its socket again
LIFETIME_SECONDS = 600
MOST_FRAME_BYTES = 2_097_152
LAST_DELIVERIES_SECONDS = 30.0  # the longest wait for deliveries at the end
SEQ = re.compile(r'"seq":(\d+),"stream":"mail","type":"delivery"')


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled agent, as `benchmarks.provision` writes it to a file."""

    agent: str
    hub: str
    hub_key: dict[str, Any]
    ws_url: str
    key: PrivateKey

    def sign(
        self,
        target: str,
        *,
        filler: str,
        kind: MessageType = MessageType.NOTIFICATION,
        lifetime_seconds: int = LIFETIME_SECONDS,
    ) -> tuple[str, bytes]:
        """Return the message id and the bytes of a new envelope with `filler` as its data."""
        document = new_document(
            identity=IAgentIdentity(id=self.agent),
            message_type=kind,
            target=target,
            data={"filler": filler},
        )
        signed = sign_envelope(
            document,
            self.key,
            hub_id=self.hub,
            now=time.time(),
            lifetime_seconds=lifetime_seconds,
        )
        return str(document["messageId"]), signed


@dataclass(slots=True)
class Tally:
    """The counts of one run."""

    accepted: int = 0
    refused: int = 0
    delivered: int = 0
    repeated: int = 0  # delivered again to the same socket
    codes: dict[str, int] = field(default_factory=dict)
    last_delivery: float = 0.0


async def connect(identity: Identity) -> Any:
    """Log in and return the socket."""
    socket, _ = await log_in(identity)
    return socket


async def log_in(identity: Identity) -> tuple[Any, Welcome]:
    """Log in and return the socket and the welcome frame."""
    socket = await websockets.connect(
        identity.ws_url,
        subprotocols=[websockets.Subprotocol(SUBPROTOCOL)],
        compression=None,
        max_size=MOST_FRAME_BYTES,
        ping_interval=None,
    )
    handshake = Handshake(
        agent=identity.agent,
        key=identity.key,
        hub_id=identity.hub,
        hub_key=PublicKey.from_jwk(identity.hub_key),
        url=identity.ws_url,
        nonce=uuid.uuid4().hex,
    )
    answer = handshake.answer(_bytes(await socket.recv()), now=time.time())
    await socket.send(answer.decode())
    return socket, handshake.admit(_bytes(await socket.recv()), now=time.time())


class Sender:
    """A sender with `WINDOW` envelopes in flight; at the end it waits for the last receipt."""

    def __init__(self, identity: Identity, target: str, tally: Tally) -> None:
        self._identity = identity
        self._target = target
        self._tally = tally
        self._under_way = 0
        self._window_open = asyncio.Event()
        self._filler = ""
        self._filler = "x" * max(0, ENVELOPE_BYTES - len(self._envelope()))

    async def run(self, socket: Any, until: float) -> None:
        reading = asyncio.create_task(self._read(socket))
        while time.perf_counter() < until:
            if self._under_way >= WINDOW:
                self._window_open.clear()
                await self._window_open.wait()
            await self._send_some(socket)
            await asyncio.sleep(0)
        while self._under_way:
            self._window_open.clear()
            await self._window_open.wait()
        reading.cancel()
        await socket.close()

    async def _send_some(self, socket: Any) -> None:
        """Send some envelopes in one message, as the SDK does."""
        count = min(TOGETHER, WINDOW - self._under_way)
        self._under_way += count
        for message in serialize_messages(self._envelope() for _ in range(count)):
            await socket.send(message.decode())

    def _envelope(self) -> bytes:
        return self._identity.sign(self._target, filler=self._filler)[1]

    async def _read(self, socket: Any) -> None:
        async for message in socket:
            frames = json.loads(message)
            for frame in frames if isinstance(frames, list) else [frames]:
                if frame["type"] != "receipt":
                    continue
                self._under_way -= 1
                if frame["status"] == "accepted":
                    self._tally.accepted += 1
                else:
                    self._tally.refused += 1
                    code = frame.get("code", frame["status"])
                    self._tally.codes[code] = self._tally.codes.get(code, 0) + 1
            self._window_open.set()


def done_ack(seqs: Sequence[int | str | bytes]) -> bytes:
    """Return the ack of an agent that has handled the deliveries of one message, in order."""
    first, last = int(seqs[0]), int(seqs[-1])
    return Ack("mail", last, done=((first, last),)).to_bytes()


class Receiver:
    """A receiver that acknowledges the last delivery of each message."""

    def __init__(self, identity: Identity, tally: Tally) -> None:
        self._identity = identity
        self._tally = tally
        self._highest = 0

    async def run(self, socket: Any) -> None:
        async for message in socket:
            if not isinstance(message, str) or '"delivery"' not in message:
                continue
            # The frames of a message are in order, so the sequence numbers alone suffice.
            seqs = [int(seq) for seq in SEQ.findall(message)]
            fresh = sum(seq > self._highest for seq in seqs)
            self._highest = max(self._highest, *seqs)
            self._tally.delivered += fresh
            self._tally.repeated += len(seqs) - fresh
            self._tally.last_delivery = time.perf_counter()
            await socket.send(done_ack(seqs).decode())


async def run_load(
    senders: Sequence[Identity], receivers: Sequence[Identity], seconds: float
) -> dict[str, Any]:
    """Send for `seconds`; return counts of envelopes and deliveries, and the time they took.

    All agents are connected before the time begins. `cpu` is the CPU seconds of this process.
    """
    tally = Tally()
    sockets, welcomes = zip(*[await log_in(r) for r in receivers], strict=True)
    sending = [await connect(s) for s in senders]
    reading = [
        asyncio.create_task(Receiver(identity, tally).run(socket))
        for identity, socket in zip(receivers, sockets, strict=True)
    ]
    backlog = await _drain(tally, sum(welcome.pending for welcome in welcomes))
    print("begin", flush=True)
    started, spent = time.perf_counter(), time.process_time()
    await asyncio.gather(
        *(
            Sender(sender, receivers[n % len(receivers)].agent, tally).run(
                socket, started + seconds
            )
            for n, (sender, socket) in enumerate(zip(senders, sending, strict=True))
        )
    )
    deadline = time.perf_counter() + LAST_DELIVERIES_SECONDS
    while tally.delivered < tally.accepted and time.perf_counter() < deadline:
        await asyncio.sleep(0.05)  # polling costs less than an event for each delivery
    elapsed = max(tally.last_delivery, started) - started
    spent = time.process_time() - spent
    print("end", flush=True)
    for task, socket in zip(reading, sockets, strict=True):
        await socket.close()
        task.cancel()
    return {
        "accepted": tally.accepted,
        "refused": tally.refused,
        "codes": tally.codes,
        "delivered": tally.delivered,
        "repeated": tally.repeated,
        "backlog": backlog,
        "seconds": elapsed,
        "cpu": spent,
    }


async def _drain(tally: Tally, pending: int) -> int:
    """Acknowledge deliveries of an earlier run without counting them; return how many."""
    deadline = time.perf_counter() + LAST_DELIVERIES_SECONDS
    while tally.delivered < pending and time.perf_counter() < deadline:
        await asyncio.sleep(0.05)
    if tally.delivered != pending:
        raise SystemExit(f"{tally.delivered} deliveries came of {pending} that were waiting")
    tally.delivered = tally.repeated = 0
    return pending


def load_identities(folder: Path) -> list[Identity]:
    """Return the agents whose identity files are in `folder`."""
    return [_identity(path) for path in sorted(folder.glob("*.json"))]


def _identity(path: Path) -> Identity:
    row = json.loads(path.read_text(encoding="utf-8"))
    key = PrivateKey.from_pem((path.parent / row["key"]).read_bytes())
    return Identity(row["agent"], row["hub"], row["hub_key"], row["ws_url"], key)


def _bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def main() -> None:
    """Run the load and print its counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("identities", type=Path, help="the folder that benchmarks.provision wrote")
    parser.add_argument("--pairs", type=int, default=20, help="senders, and receivers")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    identities = load_identities(options.identities)
    senders = identities[: options.pairs]
    receivers = identities[options.pairs : 2 * options.pairs]
    json.dump(uvloop.run(run_load(senders, receivers, options.seconds)), sys.stdout)


if __name__ == "__main__":
    main()
