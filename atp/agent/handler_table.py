"""The handlers that an application registered, at most one for each message type.

No I/O and no clock: `ticks` are the seconds of a monotonic clock. An application may register its
handlers one after the other, also when it is connected. So mail of a type without a handler waits
for `GRACE_SECONDS` after the first handler was registered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from atp.agent.turns import HandlerRule
from atp.errors import MalformedDocument, excerpt
from atp.types import MessageType

__all__ = ["Handler", "HandlerTable", "read_rule"]

GRACE_SECONDS: Final = 10.0
BY_SENDER: Final = "sender"  # the only order there is

Handler = Callable[..., Any]  # (envelope, respond) for requests, (envelope) for anything else


class HandlerTable:
    """The handlers by message type."""

    def __init__(self) -> None:
        self._handlers: dict[MessageType, Handler] = {}
        self.gives_respond = True  # whether the handler of requests has room for `respond`
        self._grace_end: float | None = None

    @property
    def takes_mail(self) -> bool:
        """Whether there is a handler of mail. Late answers are no mail."""
        return any(kind is not MessageType.RESPONSE for kind in self._handlers)

    @property
    def grace_end(self) -> float | None:
        """Until when mail of a type without a handler waits, in ticks; `None`: for ever."""
        return self._grace_end

    def register(self, message_type: MessageType | str, handler: Handler) -> MessageType:
        """Handle messages of a type with `handler`; it replaces an earlier one.

        Raises `MalformedDocument` for an unknown type, or if `handler` can't be called or is a
        generator.
        """
        try:
            kind = MessageType(message_type)
        except ValueError as exc:
            raise MalformedDocument(
                f"{excerpt(message_type)} is not a message type; use one of:"
                f" {', '.join(MessageType)}"
            ) from exc
        if not callable(handler):
            raise MalformedDocument("a handler must be a function or another callable")
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise MalformedDocument("a handler must not be a generator: return, do not yield")
        self._handlers[kind] = handler
        if kind is MessageType.REQUEST:
            self.gives_respond = _takes_respond(handler)
        return kind

    def start_grace(self, ticks: float, *, anew: bool = False) -> None:
        """Begin to wait for further handlers, if there is one and this has not begun yet."""
        if anew:
            self._grace_end = None
        if self.takes_mail and self._grace_end is None:
            self._grace_end = ticks + GRACE_SECONDS

    def find(self, kind: MessageType) -> Handler | None:
        """Return the handler of a type, or `None`."""
        return self._handlers.get(kind)

    def is_ready(self, kind: MessageType, ticks: float) -> bool:
        """Whether a message of a type can be handled now, or refused for want of a handler."""
        if kind in self._handlers:
            return True
        return self._grace_end is not None and ticks >= self._grace_end


def read_rule(ordered: str | None, max_running: int | None) -> HandlerRule:
    """Return the rule for a type; raises `MalformedDocument` for an impossible one."""
    if ordered not in (None, BY_SENDER):
        raise MalformedDocument(f"ordered must be 'sender' or None, not {excerpt(ordered)}")
    if max_running is not None and (type(max_running) is not int or max_running < 1):
        raise MalformedDocument("max_running must be a whole number above 0")
    return HandlerRule(max_running, ordered=ordered == BY_SENDER)


def _takes_respond(handler: Handler) -> bool:
    """Whether a request handler has room for `respond` beside the envelope."""
    try:
        signature = inspect.signature(handler)
        signature.bind(None, None)
    except TypeError:
        return False
    except ValueError:  # of a built-in function, which does not tell
        return True
    return True
