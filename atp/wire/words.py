"""The closed lists of words that envelopes, policies, scores and the registry share.

`LEVELS` and `SENSITIVITIES` are the values of `atp.types.TrustLevel` and `DataSensitivity`.
`LEVELS`, `SENSITIVITIES` and `SEVERITIES` are in rising order.
"""

from __future__ import annotations

from typing import Final, Literal

from atp.types import DataSensitivity, MessageType, TrustLevel

__all__ = [
    "ANSWERS",
    "CANCEL",
    "CODE_PATTERN",
    "DEMO_SCORED_AS",
    "DONE",
    "KEY_ALGORITHMS",
    "LEVELS",
    "MAIL",
    "NOTICES",
    "SCORED_ALGORITHMS",
    "SEND_ONLY",
    "SENSITIVITIES",
    "SEVERITIES",
    "STREAMS",
    "Stream",
    "stream_of",
]

LEVELS = tuple(level.value for level in TrustLevel)
SENSITIVITIES = tuple(sensitivity.value for sensitivity in DataSensitivity)
SEVERITIES = ("low", "medium", "high", "critical")

# Of the codes that agents choose: 1 to 40 characters (docs/protocol.md#the-envelope).
CODE_PATTERN: Final = r"(?=.{1,40}\Z)[a-z_]+(\.[a-z_]+)*"

KEY_ALGORITHMS = ("EdDSA", "ES256", "RS256", "PS256")  # of registered keys
DEMO_SCORED_AS = "demo"  # HS256, over the in-memory transport only
SCORED_ALGORITHMS = (*KEY_ALGORITHMS, DEMO_SCORED_AS)  # what scores and rules distinguish

Stream = Literal["mail", "answers"]
MAIL: Final = "mail"
ANSWERS: Final = "answers"
# Features of the protocol, as challenge and login name them (docs/protocol.md#features).
DONE: Final = "done"  # acks tell what is taken and what is done
CANCEL: Final = "cancel"  # a sender tells that it no longer waits for an answer
NOTICES: Final = "notices"  # notices have a place in the stream `answers`
SEND_ONLY: Final = "send_only"  # a login can leave the agent's session as it is, and only send

STREAMS: Final[tuple[Stream, ...]] = (ANSWERS, MAIL)  # answers first: they never wait behind mail


def stream_of(message_type: str) -> Stream:
    """Return the stream for messages of this type (docs/protocol.md#frames)."""
    return ANSWERS if message_type == MessageType.RESPONSE else MAIL
