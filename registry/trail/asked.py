"""What a reader asked for, as the entry of the reading keeps it.

A reader chooses how long a request is, and nobody may delete an entry. So of a long parameter the
entry keeps head, number of values, size in bytes and digest of their canonical form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atp.wire.canonical import serialize, sha256_b64url

KEPT_BYTES = 1_024  # of one parameter
HEAD_CHARS = 100


def asked_record(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request, long ones cut."""
    return {name: _cut(values) for name, values in asked.items()}


def _cut(values: Any) -> Any:
    written = serialize(values)
    if len(written) <= KEPT_BYTES:
        return values
    return {
        "head": str(values[0])[:HEAD_CHARS],
        "count": len(values),
        "bytes": len(written),
        "digest": sha256_b64url(written),
    }
