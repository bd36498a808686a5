"""uvicorn's protocol classes, with limits against strangers and hostile agents.

A stranger (a connection that has not authenticated) may send little, and must send it soon. A
message may have few fragments. The hub stops reading from a peer that does not read. A connection
that ends does not wait long for its peer.

An ended connection keeps no reference cycle, so its memory is freed at once. Otherwise the garbage
collector would have to find it, which stops the whole process.
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

STRANGER_BYTES = 16_384  # of one message before the login; twice the limit of a proof
PIECE_BYTES = 8_192  # parsed at once: at most about a thousand frames
MOST_FRAGMENTS = 256  # of a message; libraries and proxies send one, or a few of some KiB
REQUEST_SECONDS = 10.0  # from connecting to the end of a request's head; as for a handshake
HEAD_BYTES = 65_536  # of one request, at most
HEAD_END = b"\r\n\r\n"  # RFC 9112, 2.1
ANSWER_SECONDS = 60.0  # for a peer to take what is written before the hub writes more of an answer
BODY_SECONDS = 30.0  # from the end of the head to the end of the body
TOO_LARGE = (
    b"HTTP/1.1 413 Content Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 27\r\nconnection: close\r\n\r\nThe body is far too large.\n"
)
MESSAGE_TOO_BIG = 1009  # RFC 6455, 7.4.1
INVALID_DATA = 1007  # RFC 6455, 7.4.1
LINGER_SECONDS = 5.0  # for the peer to read what was written before the end

ADMIT = "atp.admit"  # keys in the extensions of an ASGI scope
CUT = "atp.cut"


def admit(scope: Mapping[str, Any]) -> None:
    """Raise the message limit of this socket to the hub's own, after its agent has logged in."""
    if (admitted := scope.get("extensions", {}).pop(ADMIT, None)) is not None:
        admitted()


def was_cut(scope: Mapping[str, Any]) -> bool:
    """Return whether the socket ended without a close frame of either side (RFC 6455, 7.1.5).

    A peer that does not answer a ping counts too.
    """
    return bool(scope.get("extensions", {}).get(CUT))


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket with limits on what its peer can make the hub store and do."""

    _abort_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._extensions: dict[str, Any] = {}  # of the ASGI scope, once there is one
        self._most_bytes = self.conn.max_message_size
        self.conn.max_message_size = STRANGER_BYTES
        self._unread = bytearray()

    def handle_connect(self, event: Any) -> None:
        """Accept the opening request; offer `admit` to the application."""
        super().handle_connect(event)
        if not self.close_sent:
            self._extensions = cast(dict[str, Any], self.scope["extensions"])
            self._extensions[ADMIT] = self._admit

    def _admit(self) -> None:
        self.conn.max_message_size = self._most_bytes

    def handle_cont(self, event: Any) -> None:
        """Take a fragment; fail the connection after `MOST_FRAGMENTS`.

        Fragments can be empty, so a limit on bytes does not limit their number.
        """
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
        """Parse the bytes in pieces, and the next piece only when the last one was taken.

        One read can hold 256 KiB, which as tiny frames would become very many objects.
        """
        if not self._unread:
            super().data_received(data[:PIECE_BYTES])
            data = data[PIECE_BYTES:]
        if data and self.conn.parser_exc is None:
            self._unread += data
            self._parse_unread()

    def _parse_unread(self) -> None:
        while self._unread and (self.queue.empty() or self.close_sent):
            piece = bytes(self._unread[:PIECE_BYTES])
            del self._unread[:PIECE_BYTES]
            super().data_received(piece)
            if self.conn.parser_exc is not None:  # the connection failed: drop the rest
                self._unread.clear()

    async def receive(self) -> Any:
        """Return the next ASGI event; read on from the socket when the queue is empty."""
        message = await self.queue.get()
        if self.queue.empty():
            self._parse_unread()
            self._resume_reading()
        return message

    def _resume_reading(self) -> None:
        """Read again, unless the peer does not read.

        Each frame that it sends makes the hub write a pong or a receipt, which it would not read.
        """
        if self.queue.empty() and self.writable.is_set() and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """Stop reading too, while the peer does not read."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again when the peer reads again."""
        super().resume_writing()
        self._resume_reading()

    def keepalive_timeout(self) -> None:
        """Abort a connection whose pong did not come: a close frame would wait for its peer."""
        self._note_cut()
        super().keepalive_timeout()
        self.transport.abort()

    def _note_cut(self) -> None:
        """Note an abnormal end, unless a close frame was sent or received."""
        if self.conn.close_rcvd is None and self.conn.close_sent is None:
            self._extensions[CUT] = True

    async def run_asgi(self) -> None:
        """Run the application; abort the connection `LINGER_SECONDS` after it has ended."""
        await super().run_asgi()
        if not self.disconnected:
            self._abort_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free timer, buffers and parser of the closed connection."""
        self._note_cut()
        super().connection_lost(exc)
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._unread.clear()
        self.conn.parser.close()  # the generator's frame refers to `conn`: break the cycle
        self._extensions.pop(ADMIT, None)


class BoundedHttp(HttpToolsProtocol):
    """HTTP with limits on the time and the size of a request, so that half a request ends soon.

    Without a limit, Django writes a body of any size to the disk before it calls a view.
    """

    _queued = b""  # bytes of a request that waits for its admission
    _mid_request = False
    _abort_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _body_bytes = 0
    _refused = False

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._admission = admissions.of_running_loop()
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Queue a new request for admission; read nothing more until it is admitted."""
        if self._mid_request:
            self._parse(data)
            return
        if not self._queued:
            self._expect_request()
        self._queued += data
        # What begins with no letter is no HTTP request: the parser refuses it at once.
        if HEAD_END in self._queued or not self._queued[:1].isalpha():
            self._stop_waiting()
            self.transport.pause_reading()
            self._admission.queue(self, self._enter)
        elif len(self._queued) > HEAD_BYTES:
            self.transport.abort()

    def _enter(self) -> None:
        data, self._queued = self._queued, b""
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes += len(data)
        if self._abort_timer is not None and self._in_head and self._head_bytes > HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Start the time limit of a request that follows another on the same connection."""
        super().on_message_begin()
        self._mid_request = True
        self._expect_request()

    def on_headers_complete(self) -> None:
        """Refuse a body that is announced as too large; start the time limit of the body."""
        self._stop_waiting()
        self._in_head, self._body_bytes = False, 0
        if self._announced_bytes() > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            self._refused = True
            self.transport.write(TOO_LARGE)
            self.transport.close()
            return
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self._abort_timer = self.loop.call_later(BODY_SECONDS, self.transport.abort)

    def on_body(self, body: bytes) -> None:
        """Abort the connection if the body exceeds `DATA_UPLOAD_MAX_MEMORY_SIZE` bytes."""
        self._body_bytes += len(body)
        if self._refused:
            return
        if self._body_bytes > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            self._refused = True
            self.transport.abort()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the time limit; pass the request on unless it was refused."""
        self._stop_waiting()
        self._mid_request = False
        if not self._refused:
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to `BoundedWebSocket`, and break the reference cycle."""
        super().handle_websocket_upgrade()
        self.parser = cast(Any, None)  # the parser refers to this protocol: break the cycle

    def pause_writing(self) -> None:
        """Start the time limit of a peer that does not read its answer."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the time limit: the peer has read."""
        super().resume_writing()
        self._stop_stall_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the admission and free the buffers of the closed connection."""
        self._stop_stall_timer()
        self._admission.leave(self)
        self._queued = b""
        self._stop_waiting()
        super().connection_lost(exc)

    def _announced_bytes(self) -> int:
        """Return the Content-Length of the request; 0 where it is missing or no number.

        The parser itself refuses a length that is no number.
        """
        lengths = [value for name, value in self.headers if name == b"content-length"]
        return max((int(value) for value in lengths if value.isdigit()), default=0)

    def _expect_request(self) -> None:
        if self._abort_timer is None:
            self._in_head, self._head_bytes = True, 0
            self._abort_timer = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


def _is_utf8(frames: Sequence[bytes]) -> bool:
    try:
        (frames[0] if len(frames) == 1 else b"".join(frames)).decode()
    except UnicodeDecodeError:
        return False
    return True
