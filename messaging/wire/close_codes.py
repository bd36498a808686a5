"""WebSocket close codes for the codes of `atp.errors` (RFC 6455, section 7.4.2: 4000-4999)."""

from __future__ import annotations

__all__ = ["CLOSE_CODES", "DEFAULT_CLOSE_CODE", "close_code"]

DEFAULT_CLOSE_CODE = 4400

CLOSE_CODES = {
    "session.authentication": 4401,
    "identity.not_active": 4403,
    "identity.revoked": 4403,
    "identity.unknown": 4403,
    "key.unknown": 4403,
    "key.revoked": 4403,
    "session.timeout": 4408,
    "session.superseded": 4409,
    "session.revoked": 4410,
    "session.fenced": 4412,
    "flow.too_many": 4429,
    "flow.busy": 4503,
    "session.closed": 1012,  # "service restart" in the IANA registry: the agent connects again
}


def close_code(code: str) -> int:
    """Return the close code for an error code; `DEFAULT_CLOSE_CODE` if it has none of its own."""
    return CLOSE_CODES.get(code, DEFAULT_CLOSE_CODE)
