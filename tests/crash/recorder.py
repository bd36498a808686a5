"""A transport that logs all frames of the SDK's real transport."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from atp.agent.receiving import read_claims
from atp.errors import ATPError
from atp.transports.base import Connection, Login, Transport
from atp.trust.envelope import Envelope, envelope_from_value, parse_envelope
from atp.types import TransportType
from atp.wire.agent_frames import Ack
from atp.wire.frames import Delivery, Gone, Receipt, Withheld, parse_message
from atp.wire.words import DONE
from tests.crash.log import Event, Kind, LogWriter


class RecordingTransport(Transport):
    """A transport that writes each frame to `log` and then passes it to `inner`."""

    type = TransportType.WEBSOCKET

    def __init__(self, inner: Transport, log: LogWriter) -> None:
        self.hub_id = inner.hub_id
        self._inner = inner
        self._log = log

    async def connect(self, login: Login) -> Connection:
        connection = await self._inner.connect(login)
        self._log.write(Event(Kind.OPENED, message=connection.welcome.session))
        return _RecordingConnection(connection, self._log)


class _RecordingConnection(Connection):
    def __init__(self, inner: Connection, log: LogWriter) -> None:
        self.welcome = inner.welcome
        self._inner = inner
        self._log = log
        self._tells_done = DONE in inner.features

    async def send(self, message: bytes) -> None:
        """Log a message before it sends it, so that the log has all that the hub can have."""
        self._log.write(*_sent(message, tells_done=self._tells_done))
        await self._inner.send(message)

    async def receive(self) -> bytes:
        """Log a message before it returns it, so that the SDK acknowledges only logged frames."""
        try:
            message = await self._inner.receive()
        except ATPError as problem:
            self._log.write(Event(Kind.CLOSED, code=problem.code))
            raise
        self._log.write(*_received(message))
        return message

    async def close(self, *, comes_back: bool = False) -> None:
        await self._inner.close(comes_back=comes_back)


def _sent(message: bytes, *, tells_done: bool) -> Iterator[Event]:
    parsed = orjson.loads(message)
    for frame in parsed if isinstance(parsed, list) else [parsed]:
        if frame.get("type") == "ack":
            yield from _done(Ack.parse(frame), tells_done=tells_done)
        elif "ATP" in frame:
            yield _of_envelope(Kind.SENT, parse_envelope(orjson.dumps(frame)))


def _done(ack: Ack, *, tells_done: bool) -> Iterator[Event]:
    """Yield an event for each range that is done; without the feature that is all up to `seq`."""
    for place in ack.begun:
        yield Event(Kind.BEGUN, stream=ack.stream, seq=place)
    for place, failures in ack.retry:
        yield Event(Kind.FAILURES, stream=ack.stream, seq=place, last=failures)
    refused = [(place, place) for place, _ in ack.refusals]
    for first, last in [*ack.done, *refused] if tells_done else [(1, ack.seq)]:
        yield Event(Kind.ACK, stream=ack.stream, seq=first, last=last)


def _received(message: bytes) -> Iterator[Event]:
    for frame in parse_message(message):
        match frame:
            case Delivery():
                envelope = envelope_from_value(frame.value, plain=frame.plain)
                yield _of_envelope(Kind.DELIVERY, envelope, stream=frame.stream, seq=frame.seq)
            case Receipt():
                yield Event(
                    Kind.RECEIPT,
                    message=frame.message_id,
                    status=frame.status,
                    code=frame.code,
                    entry=frame.entry,
                    seq=frame.recipients or 0,
                )
            case Gone():
                yield Event(
                    Kind.GONE,
                    stream=frame.stream,
                    seq=frame.first,
                    last=frame.last,
                    code=frame.code,
                )
            case Withheld():
                yield Event(
                    Kind.GONE, stream=frame.stream, seq=frame.seq, last=frame.seq, code=frame.code
                )


def _of_envelope(kind: Kind, envelope: Envelope, *, stream: str = "", seq: int = 0) -> Event:
    """Return the event of an envelope; `peer` is the recipient if it was sent, else the sender."""
    return Event(
        kind,
        message=envelope.message_id,
        digest=envelope.digest,
        peer=envelope.target if kind is Kind.SENT else envelope.sender,
        type=str(envelope.message_type),
        stream=stream,
        seq=seq,
        expires=float(read_claims(envelope)["exp"]),
    )
