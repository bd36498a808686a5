"""Write tokens as an attacker does: any header, any payload, any signature."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from atp.trust.keys import PrivateKey
from atp.wire.canonical import b64url


def forge(header: Any, claims: Any, key: PrivateKey | bytes | None) -> str:
    """Return a token of `header` and `claims` (values or JSON text), signed by key, HMAC or not."""
    head, payload = (b64url(_text(part).encode("utf-8")) for part in (header, claims))
    signing_input = f"{head}.{payload}".encode("ascii")
    if key is None:
        signature = b""
    elif isinstance(key, bytes):
        signature = hmac.new(key, signing_input, hashlib.sha256).digest()
    else:
        signature = key.sign(signing_input)
    return f"{head}.{payload}.{b64url(signature)}"


def _text(part: Any) -> str:
    return part if isinstance(part, str) else json.dumps(part)
