"""The WebSocket edge: authenticate, read frames, write frames (docs/protocol.md#connecting).

The consumer judges nothing. It passes envelopes to one lane and acks to another. A frame that is
wrong closes the socket with a code that says why. The receive loop is our own, because the dispatch
of Channels costs several times as much as all the rest (docs/design/architecture.md#why-lanes).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from channels.consumer import AsyncConsumer
from django.conf import settings

from atp.errors import (
    ATPError,
    FlowTooMany,
    FlowWindow,
    MalformedFrame,
    SessionAuthentication,
)
from atp.wire import canonical
from atp.wire.agent_frames import (
    Ack,
    AgentFrame,
    Authenticate,
    CancelRequest,
    Submission,
    parse_agent_message,
)
from atp.wire.frames import SUBPROTOCOL, Challenge, Failure, Welcome
from atp.wire.members import WireFrame
from atp.wire.timestamps import format_milliseconds
from atp.wire.words import CANCEL, DONE, NOTICES, SEND_ONLY
from messaging.node.connections import AgentConnection, SocketEnd
from messaging.node.process_node import process_node
from messaging.sessions.proofs import LoginRequest
from messaging.sessions.sessions import Opened
from messaging.telemetry import correlation, instruments
from messaging.wire import sockets
from messaging.wire.close_codes import close_code

logger = logging.getLogger(__name__)

# That this hub knows (docs/protocol.md#features).
FEATURES = (DONE, CANCEL, NOTICES, SEND_ONLY)
PROOF_FRAME_BYTES = 8_192  # of an authenticate frame
ACKS_BYTES = 65_536  # of one message without its envelopes; 256 acks need less
FINAL_CODES = {"session.revoked", "session.superseded"}  # the process may not go on
GOODBYES = {1000, 1001, 1005}  # close codes of an agent that ends (RFC 6455, section 7.4.1)
ENVELOPE_PREFIX = '{"ATP"'  # of a message that goes to the lane unparsed


class _Disconnected(Exception):
    """The agent closed the socket."""


class AgentConsumer(AsyncConsumer):  # type: ignore[misc]  # channels has no types
    """One agent's connection."""

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        await receive()  # websocket.connect
        try:
            self._node = process_node.current()
            opened = await self._handshake()
        except _Disconnected:
            return
        except ATPError as problem:
            await self._refuse(problem)
            return
        correlation.bind(session=opened.session)
        connection = AgentConnection(
            opened.agent, opened.session, send, self._features, opened.send_only, opened.taker
        )
        try:
            sockets.admit(self.scope)
            await self._welcome(opened)
        except BaseException:  # the socket closed during login: the session must not seem live
            self._node.closings.abandon(opened)
            raise
        self._node.attach(connection, opened)
        await self._serve(connection)

    # --- Handshake -----------------------------------------------------------------------------

    async def _handshake(self) -> Opened:
        if SUBPROTOCOL not in self.scope["subprotocols"]:
            raise SessionAuthentication(f"offer the subprotocol {SUBPROTOCOL}")
        await self._send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        self._accepted = True
        if len(self._node.roster.sessions) >= settings.ATP_MAX_SOCKETS:
            raise FlowTooMany("this node has all the sockets that it takes")
        async with self._node.handshakes.slot() as note_proof:
            return await self._authenticate(note_proof)

    async def _authenticate(self, note_proof: Callable[[], None]) -> Opened:
        nonce = canonical.b64url(secrets.token_bytes(32))
        now = format_milliseconds(datetime.fromtimestamp(time.time(), UTC))
        await self._send(_message(Challenge(self._node.hub_id, nonce, now, FEATURES)))
        text = await self._receive_text()
        frame = Authenticate.parse(canonical.parse(text, max_bytes=PROOF_FRAME_BYTES))
        note_proof()
        self._features = frozenset(FEATURES) & frozenset(frame.features)
        return await self._node.logins.log_in(
            LoginRequest(
                proof=frame.proof,
                nonce=nonce,
                host=self._header(b"host"),
                path=self.scope["path"],
                remote_address=str((self.scope.get("client") or [""])[0]),
                client=frame.client,
                takeover=frame.takeover,
                resumes=frame.resumes,
                send_only=frame.send_only,
            )
        )

    async def _welcome(self, opened: Opened) -> None:
        welcome = Welcome(
            session=opened.session,
            agent=opened.agent,
            level=opened.level,
            score=opened.score,
            window=settings.ATP_WINDOW,
            pending=opened.pending,
            proof=opened.proof,
            succession=opened.succession,
            send_only=opened.send_only,
        )
        await self._send(_message(welcome))

    def _header(self, name: bytes) -> str:
        headers: dict[bytes, bytes] = dict(self.scope["headers"])
        return headers.get(name, b"").decode("latin-1")

    # --- Live ----------------------------------------------------------------------------------

    async def _serve(self, connection: AgentConnection) -> None:
        """Read frames until one side closes; a close by the node interrupts the reading."""
        reading = asyncio.create_task(self._read(connection))
        closing = asyncio.create_task(connection.closed())
        try:
            await asyncio.wait({reading, closing}, return_when=asyncio.FIRST_COMPLETED)
            problem = reading.exception() if reading.done() else None
            if isinstance(problem, ATPError):
                connection.close(problem.code)
                await self._refuse(problem)
            elif problem is None and closing.done():
                await self._close(closing.result())
            elif problem is not None and not isinstance(problem, _Disconnected):
                raise problem
        finally:
            for task in (reading, closing):
                task.cancel()
            await asyncio.gather(reading, closing, return_exceptions=True)
            code = connection.close_code or "session.closed"
            connection.close(code)
            self._node.detach(connection, code, self._how_it_ended(code))
            await connection.stop_writing()

    def _how_it_ended(self, code: str) -> SocketEnd:
        if sockets.was_cut(self.scope) or code == FlowWindow.code:
            return SocketEnd.CUT
        final = code in FINAL_CODES or self._closed_with in GOODBYES
        return SocketEnd.FINAL if final else SocketEnd.CLOSED

    async def _read(self, connection: AgentConnection) -> None:
        while not connection.close_code:
            text = await self._receive_text()
            if text.startswith(ENVELOPE_PREFIX):
                await connection.window_open(len(text))
                self._node.take_envelope(connection, text)
            else:
                await self._take_frames(connection, text)

    async def _take_frames(self, connection: AgentConnection, text: str) -> None:
        frames = parse_agent_message(
            text, max_bytes=settings.ATP_MAX_FRAME_BYTES, max_frames=settings.ATP_MAX_FRAMES
        )
        _check_features(frames, connection)
        other_bytes = len(text)
        for frame in frames:
            if isinstance(frame, Ack):
                self._node.acks.take(connection, frame)
            elif isinstance(frame, CancelRequest):
                self._node.cancels.take(connection, frame.message_id)
            elif isinstance(frame, Submission):
                envelope = canonical.serialize(frame.value, plain=frame.plain).decode()
                other_bytes -= len(envelope)
                await connection.window_open(len(envelope))
                self._node.take_envelope(connection, envelope)
        # The event loop parses these bytes while all agents wait, and no window limits them.
        if other_bytes > ACKS_BYTES:
            raise MalformedFrame(f"at most {ACKS_BYTES} bytes of a message are not envelopes")
        if (pause := connection.pace.spend(other_bytes)) > 0:
            await asyncio.sleep(pause)

    # --- Wire ----------------------------------------------------------------------------------

    _accepted = False
    _closed_with: int | None = None  # the code of the agent's close frame
    _features: frozenset[str] = frozenset()

    async def _receive_text(self) -> str:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed_with = message.get("code")
            raise _Disconnected
        text = message.get("text")
        if text is None:
            raise MalformedFrame("frames are text, not binary")
        return str(text)

    async def _refuse(self, problem: ATPError) -> None:
        """Send an error frame that says what is wrong, then close."""
        if self._accepted:
            failure = Failure(problem.code, problem.detail, problem.retry_after)
            await self._send_last(_message(failure))
        await self._close(problem.code)

    async def _close(self, code: str) -> None:
        instruments.count_closed(code)
        close = {"type": "websocket.close", "code": close_code(code), "reason": code}
        await self._send_last(close)

    async def _send_last(self, message: dict[str, Any]) -> None:
        """Send on a socket that may be closed or full; give up after a second."""
        try:
            async with asyncio.timeout(1):
                await self._send(message)
        except Exception as problem:  # whatever the server raises on a dead socket
            logger.debug("a closing frame could not be sent: %s", type(problem).__name__)


def _check_features(frames: Iterable[AgentFrame], connection: AgentConnection) -> None:
    """Check that frames say what the session's features allow, before one of them is taken."""
    for frame in frames:
        if isinstance(frame, CancelRequest) and CANCEL not in connection.features:
            raise MalformedFrame(f"cancel needs the feature {CANCEL}, named in authenticate")
        if not isinstance(frame, Ack):
            continue
        if frame.tells_places and not connection.tells_done:
            raise MalformedFrame(f"an ack tells about places only with the feature {DONE}")
        if frame.refused and connection.tells_done:
            raise MalformedFrame(f"with the feature {DONE}, refused is a list of [place, code]")


def _message(frame: WireFrame) -> dict[str, Any]:
    """Return the ASGI event that sends this frame."""
    return {"type": "websocket.send", "text": frame.to_bytes().decode()}
