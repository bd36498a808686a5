"""What the logger `atp.frames` says about each frame at DEBUG: ids, states and sizes.

Only the members listed here are logged, so no payload, signature, proof or nonce is in a log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

import orjson

__all__ = ["log_frames"]

logger = logging.getLogger("atp.frames")

VALUE_MAX_CHARS: Final = 80  # of one member; the other side chooses its length
_TOLD: Final = (
    *("stream", "seq", "from", "to", "messageId", "status", "code", "entry", "recipients"),
    *("connected", "retryAfter", "acceptedAt", "withheld", "refused", "done", "begun", "retry"),
    *("attempt", "redelivered", "first"),
    *("session", "agent", "level", "score", "window", "pending", "sendOnly", "takeover", "resumes"),
    *("hub", "time", "features", "client", "sender"),
)


def log_frames(agent: str, direction: str, message: bytes) -> None:
    """Log the frames of a message of `agent` at DEBUG; `direction` is "sends" or "receives"."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    try:
        value = orjson.loads(message)
    except orjson.JSONDecodeError:
        logger.debug("%s %s %d bytes that are not JSON", agent, direction, len(message))
        return
    for frame in value if isinstance(value, list) else [value]:
        logger.debug("%s %s %s", agent, direction, _described(frame))


def _described(frame: Any) -> str:
    if not isinstance(frame, dict):
        return "what is no frame"
    told = [_shown(frame.get("type", "envelope"))]
    told += [f"{name}={_shown(frame[name])}" for name in _TOLD if name in frame]
    document = frame.get("ATP")
    if isinstance(document, dict):
        told += _envelope(document)
        told.append(f"bytes={len(orjson.dumps(document))}")
    return " ".join(told)


def _envelope(document: Mapping[str, Any]) -> list[str]:
    sender, payload = document.get("agentIdentity"), document.get("payload")
    told = [f"messageId={_shown(document.get('messageId'))}"]
    if isinstance(sender, dict):
        told.append(f"sender={_shown(sender.get('id'))}")
    if isinstance(payload, dict):
        names = ("messageType", "targetAgent", "requestId")
        told += [f"{name}={_shown(payload[name])}" for name in names if name in payload]
    return told


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return ascii(text[:VALUE_MAX_CHARS])[1:-1]
