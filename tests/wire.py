"""A raw WebSocket to the hub, on which tests send any text and read each frame."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from socket import SHUT_RDWR, SO_RCVBUF, SOL_SOCKET, socket
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from atp.wire import frames
from tests.cast import Letter, Player, prove
from tests.conftest import LiveHub

SUBPROTOCOL = Subprotocol(frames.SUBPROTOCOL)
PATIENCE_SECONDS = 10.0  # for a loaded machine; a passing test waits less
MOST_BYTES = 2_097_152

Frame = dict[str, Any]


class Wire:
    """One socket. It stores frames until a test asks for them, and splits arrays."""

    def __init__(
        self,
        hub: LiveHub,
        player: Player | None = None,
        *,
        read_ahead: int | None = 64,
        subprotocols: tuple[Subprotocol, ...] = (SUBPROTOCOL,),
        buffer_bytes: int | None = None,
    ) -> None:
        """Connect without a login; read up to `read_ahead` messages in advance.

        `buffer_bytes` limits what the system reads besides, which is megabytes by default.
        """
        self.url = hub.ws_url
        self.player = player
        self.welcome: Frame = {}
        self.close_code: int | None = None
        self.close_reason = ""
        self._frames: list[Frame] = []
        self._opened = ExitStack()
        self.socket = self._opened.enter_context(
            connect(
                self.url,
                sock=dial(self.url, buffer_bytes),
                subprotocols=list(subprotocols) or None,
                compression=None,
                max_size=MOST_BYTES,
                max_queue=read_ahead,
                ping_interval=None,
                close_timeout=1,
            )
        )

    @classmethod
    def log_in(
        cls, hub: LiveHub, player: Player, *, login: Mapping[str, Any] | None = None, **options: Any
    ) -> Wire:
        """Connect and log in; return the socket. `login` are more members of `authenticate`."""
        wire = cls(hub, player, **options)
        wire.authenticate(wire.prove(wire.challenge()["nonce"]), **(login or {}))
        wire.welcome = wire.next("welcome")
        return wire

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._opened.close()

    def cut(self) -> None:
        """Break the connection without a close frame, as a broken network does."""
        self.socket.socket.shutdown(SHUT_RDWR)

    # --- The login, step by step -----------------------------------------------------------------

    def challenge(self) -> Frame:
        return self.next("challenge")

    def prove(self, nonce: str, **changes: Any) -> str:
        assert self.player is not None
        return prove(self.player, url=self.url, nonce=nonce, **changes)

    def authenticate(self, proof: object, **members: Any) -> None:
        self.send_frame({"type": "authenticate", "proof": proof, **members})

    # --- Sending ---------------------------------------------------------------------------------

    def send_text(self, text: str | bytes) -> None:
        self.socket.send(text)

    def send_raw_text(self, data: bytes) -> None:
        """Send these bytes as a text message, even if they are not valid text."""
        self.socket.send(data, text=True)

    def send_frame(self, frame: object) -> None:
        self.send_text(json.dumps(frame))

    def send(self, *letters: Letter) -> None:
        """Send each envelope in its own message."""
        for letter in letters:
            self.send_text(letter.text)

    def send_together(self, *letters: Letter) -> None:
        """Send all envelopes in one message, so that one batch has them all."""
        self.send_text(f"[{','.join(letter.text for letter in letters)}]")

    def submit(self, letter: Letter) -> Frame:
        """Send an envelope; return its receipt."""
        self.send(letter)
        return self.receipt(letter)

    def ack(self, seq: int, *, stream: str = "mail", **members: Any) -> None:
        self.send_frame({"type": "ack", "stream": stream, "seq": seq, **members})

    # --- Reading ---------------------------------------------------------------------------------

    def receipt(self, letter: Letter) -> Frame:
        """Return the receipt of this envelope."""
        return self.take(
            lambda f: f["type"] == "receipt" and f["messageId"] == letter.message_id,
            f"a receipt of {letter.message_id}",
        )

    def next(self, kind: str) -> Frame:
        """Return the next frame of a type."""
        return self.take(lambda f: f["type"] == kind, f"a frame of type {kind}")

    def mail(self) -> Frame:
        """Return the next frame of the stream `mail`: a delivery, `withheld` or `gone`."""
        return self.take(lambda f: f.get("stream") == "mail", "mail")

    def answers(self) -> Frame:
        return self.take(lambda f: f.get("stream") == "answers", "an answer")

    def ended(self) -> tuple[str, int]:
        """Return the code of the error frame or close reason, and the WebSocket close code."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.close_code is None:
            self._read(deadline, "the end of the connection")
        errors = [frame["code"] for frame in self._frames if frame["type"] == "error"]
        return (errors[0] if errors else self.close_reason), self.close_code

    def take(self, wanted: Callable[[Frame], bool], what: str) -> Frame:
        """Return the first wanted frame; keep the others."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        looked_at = 0
        while True:
            for index in range(looked_at, len(self._frames)):
                if wanted(self._frames[index]):
                    return self._frames.pop(index)
            looked_at = len(self._frames)
            self._read(deadline, what)
            if self.close_code is not None and looked_at == len(self._frames):
                raise AssertionError(
                    f"closed ({self.close_code} {self.close_reason}) before {what};"
                    f" heard {self._frames}"
                )

    def unasked(self) -> list[Frame]:
        """Return the frames that came and were not asked for."""
        return list(self._frames)

    def _read(self, deadline: float, what: str) -> None:
        try:
            message = self.socket.recv(timeout=max(0, deadline - time.monotonic()))
        except TimeoutError:
            raise AssertionError(f"{what} did not come; heard {self._frames}") from None
        except ConnectionClosed as closed:
            close = closed.rcvd
            self.close_code = close.code if close else 1006
            self.close_reason = close.reason if close else ""
            return
        value = json.loads(message)
        self._frames.extend(value if isinstance(value, list) else [value])


def dial(url: str, buffer_bytes: int | None = None) -> socket:
    """Open a TCP connection to the server of `url`."""
    parts = urlsplit(url)
    dialling = socket()
    if buffer_bytes is not None:
        dialling.setsockopt(SOL_SOCKET, SO_RCVBUF, buffer_bytes)
    dialling.settimeout(PATIENCE_SECONDS)
    dialling.connect((parts.hostname or "", parts.port or 80))
    return dialling
