"""Measure the cost of the protocol: sign, parse and verify an envelope of 800 bytes."""

from __future__ import annotations

import time
import uuid

from atp import IAgentIdentity, MessageType, PrivateKey
from atp.trust.envelope import new_document, parse_envelope, sign_envelope, verify_envelope
from benchmarks.report import Figure
from benchmarks.run import Run
from benchmarks.yardsticks import rate

HUB_ID = "hub-bench"
ENVELOPE_BYTES = 800
LIFETIME_SECONDS = 3600


def figures(run: Run) -> list[Figure]:
    """Return the rates per second on one core."""
    key = PrivateKey.generate()
    document = _document(key)
    signed = _sign(document, key)
    now = time.time()
    envelope = parse_envelope(signed)
    rates = {
        "sdk.sign": rate(lambda: _sign(document, key)),
        "sdk.parse": rate(lambda: parse_envelope(signed)),
        "sdk.verify": rate(lambda: verify_envelope(envelope, key.public, hub_id=HUB_ID, now=now)),
    }
    return [run.rate(name, value, "envelopes/s") for name, value in rates.items()]


def _document(key: PrivateKey) -> dict[str, object]:
    document = new_document(
        identity=IAgentIdentity(id="bench-sender"),
        message_type=MessageType.NOTIFICATION,
        target="bench-recipient",
        message_id=str(uuid.uuid4()),
        data={"filler": ""},
    )
    missing = ENVELOPE_BYTES - len(_sign(document, key))
    document["payload"]["data"]["filler"] = "x" * missing
    return document


def _sign(document: dict[str, object], key: PrivateKey) -> bytes:
    return sign_envelope(
        document, key, hub_id=HUB_ID, now=time.time(), lifetime_seconds=LIFETIME_SECONDS
    )
