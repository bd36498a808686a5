"""What an envelope says, apart from what differs each time that it is written and signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atp.types import MessageType
from atp.wire.canonical import digest

__all__ = ["content_mark"]


def content_mark(document: Mapping[str, Any]) -> str:
    """Return a digest of the payload and the policy context of an envelope's `document`.

    Two envelopes with the same mark say the same: the same message, signed twice, has two digests
    and one mark. The salt is left out, and so is the `requestId` of a request, because each
    signing has its own. Raises a `MalformedError` if the document has no canonical form.
    """
    payload = dict(document["payload"])
    payload.pop("salt", None)
    if payload.get("messageType") == MessageType.REQUEST:
        payload.pop("requestId", None)
    return digest([payload, document.get("policyContext")])
