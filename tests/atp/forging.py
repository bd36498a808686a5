"""Tokens as an attacker writes them: any header, any payload text, signed by what is at hand."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from atp.trust.keys import PrivateKey
from atp.wire.canonical import b64url


def forge(header: Any, claims: Any, key: PrivateKey | bytes | None) -> str:
    """`header` and `claims` as values or as JSON text; a key's signature, an HMAC, or none."""
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
