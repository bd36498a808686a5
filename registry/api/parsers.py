"""Parses request bodies as strictly as envelopes.

A body must not hold duplicate members, or numbers that a parser would change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.parsers import BaseParser

from atp.errors import MalformedTooLarge
from atp.wire.canonical import parse

BODY_MAX_BYTES = 65_536  # the largest body is an enrolment, with a key and a token


class StrictJSONParser(BaseParser):
    """Parses JSON with `atp.wire.canonical.parse`, and lets its errors through with their codes."""

    media_type = "application/json"

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the JSON of a body; raises `MalformedError` for what is not strict JSON."""
        data = stream.read(BODY_MAX_BYTES + 1)
        if len(data) > BODY_MAX_BYTES:
            raise MalformedTooLarge(f"a body may have at most {BODY_MAX_BYTES} bytes")
        return parse(data)
