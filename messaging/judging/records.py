"""What an entry keeps of an envelope. Of one that was denied, nothing that would fill the trail.

Nobody may delete an entry, and an agent chooses what it sends. So of the large parts of a denied
envelope only number, size and digest are entered, and `notKept` names them: those who hold such a
part can show that it is the one, but from the trail alone it can't be checked any more.
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

DENIED_KEPT_BYTES = 16_384  # of what no agent gets; digest and size tell what a larger one was


def record_parts(one: Decided, facts: BatchFacts) -> dict[str, Any]:
    """The members of the entry's body that may be large: `decision`, `provenance`, `notKept`."""
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
    """The lists among the consulted values that are too large for a denial, each cut."""
    lists = {n: v for n, v in decision.consulted.items() if isinstance(v, list)}
    return {name: cut for name, value in lists.items() if (cut := _cut(value)) is not None}


def _without(decision: Decision, large: Mapping[str, Any]) -> dict[str, Any]:
    record = decision.to_record()
    return {**record, "consulted": {**record["consulted"], **large}}


def _cut(items: Sequence[Any]) -> dict[str, Any] | None:
    """Number, size in bytes and digest of items whose canonical form is too large, or `None`."""
    written = serialize(items)
    if len(written) <= DENIED_KEPT_BYTES:
        return None
    return {"count": len(items), "bytes": len(written), "digest": sha256_b64url(written)}
