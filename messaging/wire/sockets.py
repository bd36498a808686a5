"""uvicorn's protocols with the bounds that they leave open to strangers and to hostile agents.

What a stranger may send is small and soon; a message comes in few fragments; who does not read
is not read either; and a connection that is over does not wait for its peer to take the rest.
Nothing that is over refers to itself: it is freed at once, not when the garbage collector stops
everybody to look for it.
"""

from __future__ import annotations

import asyncio
from asyncio.transports import BaseTransport
from collections.abc import Mapping, Sequence
from typing import Any, cast

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from messaging.wire.admission import admissions

STRANGER_BYTES = 16_384  # a message before the proof is accepted; twice what a proof may have
PIECE_BYTES = 8_192  # parsed before what it holds has been taken: a thousand frames at most
MOST_FRAGMENTS = 256  # of a message; libraries and proxies send one, or a few of some KiB
REQUEST_SECONDS = 10.0  # from connecting to the end of a request's head; as long as a handshake
HEAD_BYTES = 65_536  # of a request
HEAD_END = b"\r\n\r\n"  # RFC 9112, 2.1
BODY_SECONDS = 30.0  # from the end of the head; what it may hold is Django's setting
TOO_LARGE = (
    b"HTTP/1.1 413 Content Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 27\r\nconnection: close\r\n\r\nThe body is far too large.\n"
)
MESSAGE_TOO_BIG = 1009  # RFC 6455, 7.4.1
INVALID_DATA = 1007  # RFC 6455, 7.4.1
LINGER_SECONDS = 5.0  # for the peer to take what was written before the end

ADMIT = "atp.admit"  # in a scope's extensions


def admit(scope: Mapping[str, Any]) -> None:
    """Let this socket's messages be as large as the hub takes: its agent has proved who it is."""
    if (admitted := scope.get("extensions", {}).pop(ADMIT, None)) is not None:
        admitted()


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket that costs the hub little, whoever is at its other end."""

    _patience: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._extensions: dict[str, Any] = {}  # of its scope, once it has one
        self._most_bytes = self.conn.max_message_size
        self.conn.max_message_size = STRANGER_BYTES
        self._unread = bytearray()

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            self._extensions = cast(dict[str, Any], self.scope["extensions"])
            self._extensions[ADMIT] = self._admit

    def _admit(self) -> None:
        self.conn.max_message_size = self._most_bytes

    def handle_cont(self, event: Any) -> None:
        """Fragments may be empty: they are counted, as their bytes alone would bound nothing."""
        if self.close_sent:
            return
        if len(self.frames) < MOST_FRAGMENTS:
            super().handle_cont(event)
            return
        self.frames = []
        self.conn.fail(MESSAGE_TOO_BIG, f"more than {MOST_FRAGMENTS} fragments")
        self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """End the connection at a text that is not UTF-8 (RFC 6455, section 8.1).

        uvicorn does so too, but writes a traceback for each, which any stranger could ask for.
        """
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames):
            self.frames = []
            self.conn.fail(INVALID_DATA, "a text message is not UTF-8")
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()

    def data_received(self, data: bytes) -> None:
        """A quarter of a megabyte may come at once; as tiny frames it would become many."""
        if not self._unread:
            super().data_received(data[:PIECE_BYTES])
            data = data[PIECE_BYTES:]
        if data and self.conn.parser_exc is None:
            self._unread += data
            self._parse_on()

    def _parse_on(self) -> None:
        while self._unread and (self.queue.empty() or self.close_sent):
            piece = bytes(self._unread[:PIECE_BYTES])
            del self._unread[:PIECE_BYTES]
            super().data_received(piece)
            if self.conn.parser_exc is not None:  # it has failed; the rest means nothing
                self._unread.clear()

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.queue.empty():
            self._parse_on()
            self._read_on()
        return message

    def _read_on(self) -> None:
        """What it sends asks for more writing, pongs or receipts: not while it reads nothing."""
        if self.queue.empty() and self.writable.is_set() and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_on()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if not self.disconnected:
            self._patience = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._patience is not None:
            self._patience.cancel()
        self._unread.clear()
        self.conn.parser.close()  # its frame refers to `conn`
        self._extensions.pop(ADMIT, None)


class BoundedHttp(HttpToolsProtocol):
    """HTTP whose requests have to come: nobody holds a connection with half of one.

    Django would write a body of any size to the disk before a view hears of it.
    """

    _unheard = b""
    _mid_request = False
    _patience: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _body_bytes = 0
    _refused = False

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._admission = admissions.of_running_loop()
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Whoever has asked for something waits for its turn; nothing more is read meanwhile."""
        if self._mid_request:
            self._hear(data)
            return
        if not self._unheard:
            self._expect_request()
        self._unheard += data
        asked = HEAD_END in self._unheard or not self._unheard[:1].isalpha()
        if asked:
            self._stop_waiting()
            self.transport.pause_reading()
            self._admission.queue(self, self._enter)
        elif len(self._unheard) > HEAD_BYTES:
            self.transport.abort()

    def _enter(self) -> None:
        heard, self._unheard = self._unheard, b""
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self._hear(heard)

    def _hear(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes += len(data)
        if self._patience is not None and self._in_head and self._head_bytes > HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._mid_request = True
        self._expect_request()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._in_head, self._body_bytes = False, 0
        if self._announced_bytes() > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            self._refused = True
            self.transport.write(TOO_LARGE)
            self.transport.close()
            return
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self._patience = self.loop.call_later(BODY_SECONDS, self.transport.abort)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._refused:
            return
        if self._body_bytes > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            self._refused = True
            self.transport.abort()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop_waiting()
        self._mid_request = False
        if not self._refused:
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        self.parser = cast(Any, None)  # it refers to this protocol, which is not needed any more

    def connection_lost(self, exc: Exception | None) -> None:
        self._admission.leave(self)
        self._unheard = b""
        self._stop_waiting()
        super().connection_lost(exc)

    def _announced_bytes(self) -> int:
        """What the request says of its body; what is no number is the parser's business."""
        said = [value for name, value in self.headers if name == b"content-length"]
        return max((int(value) for value in said if value.isdigit()), default=0)

    def _expect_request(self) -> None:
        if self._patience is None:
            self._in_head, self._head_bytes = True, 0
            self._patience = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def _is_utf8(frames: Sequence[bytes]) -> bool:
    try:
        (frames[0] if len(frames) == 1 else b"".join(frames)).decode()
    except UnicodeDecodeError:
        return False
    return True
