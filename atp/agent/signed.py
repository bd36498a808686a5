"""The signed bytes of messages whose ids their callers chose, until they expire.

A caller that sends such a message again sends these bytes, and the hub knows them as a repeat. No
I/O and no clock: `now` is in seconds since 1970.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from atp.agent.receiving import Received, read_claims
from atp.errors import ReplayConflict
from atp.trust.content import content_mark
from atp.trust.envelope import Envelope
from atp.trust.tokens import MESSAGE_MAX_LIFE_SECONDS

__all__ = ["SignedMessage", "SignedMessages", "expiry_of"]

KEPT_MOST: Final = 4_096
KEPT_BYTES: Final = 32 * 1024 * 1024  # of envelopes and answers; those kept longest go first


@dataclass(slots=True)
class SignedMessage:
    """A signed message, and the answer if it is a request that was answered.

    `mark` is the mark of its content, and `expires_at` in seconds since 1970, if it is kept.
    """

    envelope: Envelope
    mark: str = ""
    expires_at: float = 0.0
    answer: Received | None = None

    @property
    def size(self) -> int:
        """The bytes of the message and of its answer."""
        answer = 0 if self.answer is None else len(self.answer.envelope.canonical)
        return len(self.envelope.canonical) + answer


class SignedMessages:
    """The kept messages of one agent, by message id."""

    def __init__(self, *, most: int = KEPT_MOST, most_bytes: int = KEPT_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, SignedMessage] = OrderedDict()
        self._requests: dict[str, str] = {}  # requestId -> message id
        self._bytes = 0

    def message(self, envelope: Envelope, *, chosen_id: bool, now: float) -> SignedMessage:
        """Return the message to send for one that was just signed: itself, or that of `first`.

        `chosen_id` is whether the caller chose its id, so that it may send it again.
        """
        return self.first(envelope, now=now) if chosen_id else SignedMessage(envelope)

    def first(self, envelope: Envelope, *, now: float) -> SignedMessage:
        """Return the message that was kept under the id of `envelope`, or keep this one.

        Raises `ReplayConflict` if the kept one says something else.
        """
        kept, mark = self._kept.get(envelope.message_id), content_mark(envelope.document)
        if kept is None or kept.expires_at <= now:
            return self._keep(SignedMessage(envelope, mark, expiry_of(envelope)), now)
        if kept.mark != mark:
            raise ReplayConflict(
                f"message_id {envelope.message_id} belongs to a message with other content;"
                " give each message an id of its own"
            )
        return kept

    def note_answer(self, received: Received) -> None:
        """Keep an answer, if it answers a kept request: a caller may still ask for it."""
        message_id = self._requests.get(received.envelope.request_id or "")
        kept = self._kept.get(message_id or "")
        if kept is None or kept.answer is not None or not _answers(received, kept.envelope):
            return
        kept.answer = received
        self._bytes += len(received.envelope.canonical)
        self._make_room()

    def _keep(self, message: SignedMessage, now: float) -> SignedMessage:
        self._drop(message.envelope.message_id)
        while self._kept and next(iter(self._kept.values())).expires_at <= now:
            self._drop(next(iter(self._kept)))
        self._kept[message.envelope.message_id] = message
        self._bytes += message.size
        if message.envelope.request_id is not None:
            self._requests[message.envelope.request_id] = message.envelope.message_id
        self._make_room()
        return message

    def _make_room(self) -> None:
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, message_id: str) -> None:
        message = self._kept.pop(message_id, None)
        if message is not None:
            self._bytes -= message.size
            self._requests.pop(message.envelope.request_id or "", None)


def expiry_of(envelope: Envelope) -> float:
    """Return when an envelope of this agent expires, in seconds since 1970."""
    if envelope.signature is None:  # in memory only
        return envelope.timestamp + MESSAGE_MAX_LIFE_SECONDS
    return float(read_claims(envelope)["exp"])


def _answers(received: Received, request: Envelope) -> bool:
    answer = received.envelope
    signed_for = request.signature is None or received.req == request.digest
    return answer.sender == request.target and signed_for
