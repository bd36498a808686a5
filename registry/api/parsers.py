"""Request bodies, read as strictly as envelopes: no duplicate member, no number that changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.parsers import BaseParser

from atp.errors import MalformedTooLarge
from atp.wire.canonical import parse

BODY_MAX_BYTES = 65_536  # of a call of the registry; none needs more than a key and a token


class StrictJSONParser(BaseParser):
    """JSON by `atp.canonical.parse`; what it refuses keeps its code."""

    media_type = "application/json"

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        data = stream.read(BODY_MAX_BYTES + 1)
        if len(data) > BODY_MAX_BYTES:
            raise MalformedTooLarge(f"a body has at most {BODY_MAX_BYTES} bytes")
        return parse(data)
