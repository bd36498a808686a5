"""The WebSocket transport: the protocol's own subprotocol, and a login on every connection.

See docs/protocol.md#connecting.

Example::

    transport = WebSocketTransport("wss://hub.example/ws/agents/", hub_id="hub-5d1c...")
    async with ATPClient(identity, TrustLevel.VERIFIED, key, transport=transport) as client:
        ...
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from atp.agent.frame_log import log_frames
from atp.agent.handshake import Handshake
from atp.errors import (
    BY_CODE,
    KeyUnacceptable,
    SessionClosed,
    SessionTimeout,
    SessionTransport,
    excerpt,
    from_code,
)
from atp.memory.keys import DemoKey
from atp.transports.addresses import AddressError, is_loopback, proxy_for, split_address
from atp.transports.base import Clock, Connection, Login, Transport
from atp.trust.keys import PublicKey
from atp.trust.tokens import CLOCK_SKEW_SECONDS
from atp.types import TransportType
from atp.version import USER_AGENT
from atp.wire.frames import MESSAGE_MAX_BYTES, SUBPROTOCOL

__all__ = ["WebSocketTransport"]

logger = logging.getLogger(__name__)

CLOCK_WARNING_SECONDS: Final = 5  # of difference between two clocks; below it, nothing is said
# A hub refuses proofs that are off by more, so no hub can move the dates of an agent further.
CLOCK_CORRECTED_MAX_SECONDS: Final = CLOCK_SKEW_SECONDS
LOGIN_SECONDS: Final = 10  # docs/protocol.md#connecting: the time for a login
PING_SECONDS: Final = 20  # docs/design/reliability.md: the same as the hub's
CLOSE_SECONDS: Final = 2  # for the closing handshake, which a dead hub does not answer
NONCE_BYTES: Final = 16
GOODBYE: Final = 1000  # RFC 6455 section 7.4.1: the agent's process takes nothing more
COMES_BACK: Final = 4000  # docs/protocol.md#acks: any code but 1000 and 1001
# A clock that is never stepped and that goes on while the machine sleeps: Linux has one.
_BOOT_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)
NO_HUB_STATUSES: Final = (403, 404)  # of a hub for an unknown path, and of other web servers


class WebSocketTransport(Transport):
    """A hub at `url`, where the agent is enrolled.

    `hub_id` and `hub_key` come from `atp enroll`. Without `hub_key`, the hub's proof is not checked
    and only TLS identifies the hub. `tls` replaces the default TLS settings. `clock` gives this
    machine's time at a login. The time of the transport is corrected by the difference to the hub's
    clock at the last login, of up to a minute; it does not follow steps of this machine's clock
    until the next login. Raises `AddressError` if `url` is not a WebSocket address, or
    is `ws` and not on the loopback.
    """

    type = TransportType.WEBSOCKET

    def __init__(
        self,
        url: str,
        *,
        hub_id: str,
        hub_key: PublicKey | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        _check_url(url)
        self.url = url
        self.hub_id = hub_id
        self._hub_key = hub_key
        self._tls = tls
        self._own_clock = clock or time.time
        self._correction_seconds = 0.0
        self._read_at: tuple[float, float] | None = None  # own time and ticks of the last login
        self.clock = self._corrected_clock

    async def connect(self, login: Login) -> Connection:
        """Connect and log in.

        Raises `KeyMissing` or `KeyUnacceptable` for a key that a network transport refuses,
        `SessionTransport` if the hub can't be reached, `SessionTimeout` if it does not answer in
        time, `SessionAuthentication` or `SignatureAudience` for another hub, or the error of the
        hub's refusal.
        """
        if isinstance(login.key, DemoKey):
            raise KeyUnacceptable(
                "a string key is for the in-memory transport only; make a key pair with"
                " `atp keygen` and enrol it with `atp enroll`"
            )
        handshake = Handshake(
            agent=login.identity.id,
            key=login.key,
            hub_id=self.hub_id,
            hub_key=self._hub_key,
            url=self.url,
            nonce=secrets.token_urlsafe(NONCE_BYTES),
            began=self._own_clock(),
            takeover=login.takeover,
            resumes=login.resumes,
            send_only=login.send_only,
        )
        logger.debug("%s: connects to %s", login.identity.id, self.url)
        socket = await self._open_socket()
        connection = _WebSocketConnection(socket)
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                await self._log_in(connection, handshake, login.identity.id)
        except TimeoutError as exc:
            await connection.close()
            raise SessionTimeout(f"no login at {self.url} within {LOGIN_SECONDS} s") from exc
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _log_in(
        self, connection: _WebSocketConnection, handshake: Handshake, agent: str
    ) -> None:
        """Log in with this machine's own time: a hub can't choose the dates of a proof."""
        challenge = await connection.receive()
        log_frames(agent, "receives", challenge)
        answer = handshake.answer(challenge, now=self._own_clock())
        log_frames(agent, "sends", answer)
        await connection.send(answer)
        welcome = await connection.receive()
        log_frames(agent, "receives", welcome)
        connection.welcome = handshake.admit(welcome, now=self._own_clock())
        self._correct_clock(handshake.behind)

    def _corrected_clock(self) -> float:
        """Return the time of the last login and what has passed since: steps of the clock are not.

        Without a clock of the system that goes on while the machine sleeps, a step forward counts
        as sleep, until the next login.
        """
        if self._read_at is None:
            return self._own_clock()
        own, ticks = self._read_at
        passed = _ticks() - ticks
        if _BOOT_CLOCK is None:
            passed = max(passed, self._own_clock() - own)
        return own + passed + self._correction_seconds

    def _correct_clock(self, behind: float) -> None:
        """Correct the clock by the difference at the login; warn of a large one."""
        is_corrected = abs(behind) <= CLOCK_CORRECTED_MAX_SECONDS
        self._correction_seconds = behind if is_corrected else 0.0
        self._read_at = self._own_clock(), _ticks()
        if abs(behind) <= CLOCK_WARNING_SECONDS:
            return
        side = "behind" if behind > 0 else "ahead of"
        done = "it is too much to be corrected here"
        if is_corrected:
            done = "the client corrects the dates that it writes to this hub"
        logger.warning(
            "this machine's clock is %.0f s %s the clock of %s; %s; set the clock",
            abs(behind),
            side,
            self.hub_id,
            done,
        )

    async def _open_socket(self) -> ClientConnection:
        options: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
        proxy = proxy_for(self.url)
        try:
            socket = await connect(
                self.url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,  # docs/design/reliability.md: off on both sides
                max_size=MESSAGE_MAX_BYTES,
                open_timeout=LOGIN_SECONDS,
                ping_interval=PING_SECONDS,
                ping_timeout=PING_SECONDS,
                close_timeout=CLOSE_SECONDS,
                proxy=proxy.url if proxy else None,
                user_agent_header=USER_AGENT,
                **options,
            )
        except (OSError, WebSocketException) as exc:  # TimeoutError is an OSError
            way = f" through {proxy}" if proxy else ""
            raise SessionTransport(
                f"no connection to {self.url}{way} ({_reason(exc)});"
                f" is the hub running there?{_hint(exc)}"
            ) from exc
        if socket.subprotocol != SUBPROTOCOL:
            await socket.close()
            raise SessionTransport(f"the server at {self.url} does not speak {SUBPROTOCOL}")
        return socket


class _WebSocketConnection(Connection):
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, message: bytes) -> None:
        with _closing_told():
            await self._socket.send(message, text=True)

    async def receive(self) -> bytes:
        with _closing_told():
            return await self._socket.recv(decode=False)

    async def close(self, *, comes_back: bool = False) -> None:
        await self._socket.close(COMES_BACK if comes_back else GOODBYE)


def _ticks() -> float:
    """Return the seconds of a clock that is never stepped."""
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)


def _check_url(url: str) -> None:
    """Raise `AddressError` for a text that is not a WebSocket address, or is unsafe."""
    parts = split_address(url)
    if parts.username is not None or parts.fragment:  # not quoted: it may hold a password
        raise AddressError("the address of a hub has no user, password or fragment")
    if parts.scheme not in ("ws", "wss"):
        raise AddressError(f"{excerpt(url)} is not like wss://hub.example/ws/agents/")
    if parts.scheme == "ws" and not is_loopback(parts.hostname or ""):
        raise AddressError(f"wss is required for {parts.hostname}; ws is for the loopback only")


@contextmanager
def _closing_told() -> Iterator[None]:
    """Turn the end of a socket into the error that the hub gave as the reason, if it gave one."""
    try:
        yield
    except ConnectionClosed as exc:
        reason = exc.rcvd.reason if exc.rcvd is not None else ""
        if reason in BY_CODE:
            raise from_code(reason, f"the hub closed the connection. {_meaning(reason)}") from exc
        raise SessionClosed(f"the connection ended ({exc})") from exc
    except OSError as exc:
        raise SessionTransport(f"the connection broke ({_reason(exc)})") from exc


def _hint(problem: Exception) -> str:
    """Return what to check, for an answer that shows a wrong address; '' for any other."""
    if isinstance(problem, ssl.SSLError) and problem.reason == "WRONG_VERSION_NUMBER":
        return " A hub without TLS has an address with ws:// instead of wss://."
    if isinstance(problem, InvalidStatus) and problem.response.status_code in NO_HUB_STATUSES:
        return " Check the host name and the path: a hub's address ends in /ws/agents/."
    return ""


def _reason(problem: Exception) -> str:
    return str(problem) or type(problem).__name__


def _meaning(code: str) -> str:
    """Return the meaning of a code, as in docs/errors.md."""
    return (BY_CODE[code].__doc__ or "").partition("\n")[0]
