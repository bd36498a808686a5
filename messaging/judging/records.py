"""The large members of an envelope's entry. Entries of denied envelopes leave large parts out.

Entries are never deleted, and an agent chooses what it sends, so denied envelopes could fill the
trail. Of each large part of a denied envelope, the entry has only number, size and digest, in
`notKept`. With a copy of the part, the digest can be checked; without a copy, it can't.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atp.judging.policy import Decision
from atp.trust.provenance import chain_head
from atp.wire.canonical import serialize, sha256_b64url
from messaging.judging.facts import BatchFacts
from messaging.judging.item import Decided

__all__ = ["DENIED_KEPT_BYTES", "record_parts"]

DENIED_KEPT_BYTES = 16_384  # the largest part of a denied envelope that its entry keeps


def record_parts(one: Decided, facts: BatchFacts) -> dict[str, Any]:
    """Return the large members of the entry's body: `decision`, `provenance`, `notKept`."""
    parts: dict[str, Any] = {}
    not_kept: dict[str, Any] = {}
    accepted, decision = one.verdict.accepted, one.verdict.decision
    if decision is not None:
        parts["decision"] = facts.record_of_decision(decision)
        if not accepted and (large := _large_values(decision)):
            parts["decision"] = _without(decision, large)
            not_kept |= {f"decision.consulted.{name}": value for name, value in large.items()}
    if provenance := one.envelope.provenance:
        cut = None if accepted else _cut(provenance)
        if cut is None:
            parts["provenance"] = provenance
        else:
            not_kept["provenance"] = {**cut, "head": chain_head(provenance)}
    return {**parts, "notKept": not_kept} if not_kept else parts


def _large_values(decision: Decision) -> dict[str, Any]:
    """Return a summary of each consulted list that is too large for the entry of a denial."""
    lists = {n: v for n, v in decision.consulted.items() if isinstance(v, list)}
    return {name: cut for name, value in lists.items() if (cut := _cut(value)) is not None}


def _without(decision: Decision, large: Mapping[str, Any]) -> dict[str, Any]:
    record = decision.to_record()
    return {**record, "consulted": {**record["consulted"], **large}}


def _cut(items: Sequence[Any]) -> dict[str, Any] | None:
    """Return number, size in bytes and digest of the items; `None` if they are small enough."""
    written = serialize(items)
    if len(written) <= DENIED_KEPT_BYTES:
        return None
    return {"count": len(items), "bytes": len(written), "digest": sha256_b64url(written)}
