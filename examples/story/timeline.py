"""Compare the trail with what the story saw, and print it as a timeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from examples.story.voice import StoryError

__all__ = ["HEAD", "Record", "timeline"]

HEAD: Final = ("entry", "time (UTC)", "what", "who", "with whom", "and why")
FIELDS: Final = (
    "index,time,kind,actor,subject,sender,recipient,messageId,verdict,score,issuer,reason"
)


@dataclass
class Record:
    """The receipts by entry number, and the decisions of officers, that the story saw."""

    receipts: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    decisions: list[tuple[str, str]] = field(default_factory=list)  # kind and agent

    def note(self, receipts: Iterable[Mapping[str, Any]]) -> None:
        """Add the receipts that name an entry."""
        self.receipts.update({r["entry"]: r for r in receipts if r["entry"] is not None})

    def questions(self, agents: Sequence[str], *, first: int) -> list[tuple[str, str]]:
        """Return the query parameters for the entries about `agents` from number `first` on."""
        asked = [("agent", agent) for agent in agents]
        return [*asked, ("indexFrom", str(first)), ("order", "oldest"), ("fields", FIELDS)]

    def check(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Raise `StoryError` if a receipt or a decision is missing in `entries`, or differs."""
        by_index = {entry["index"]: entry for entry in entries}
        for index, receipt in self.receipts.items():
            entry = by_index.get(index, {})
            if entry.get("messageId") != receipt["messageId"]:
                raise StoryError(f"entry {index} is not that of {receipt['messageId']}")
            if entry["verdict"] != receipt["status"]:
                raise StoryError(f"entry {index} says {entry['verdict']}, the receipt did not")
        seen = {(entry["kind"], entry["subject"]) for entry in entries}
        missing = [
            f"{kind} of {agent}" for kind, agent in self.decisions if (kind, agent) not in seen
        ]
        if missing:
            raise StoryError(f"the trail does not have: {', '.join(missing)}")


def timeline(entries: Sequence[Mapping[str, Any]], *, suffix: str) -> list[tuple[str, ...]]:
    """Return a row for each entry; consecutive equal entries share one row.

    `suffix`, the end of every agent's name, is left out.
    """
    rows: list[tuple[str, ...]] = []
    last: tuple[Any, ...] = ()
    first_index = count = 0
    for entry in entries:
        who, whom = _who(entry).removesuffix(suffix), _with_whom(entry).removesuffix(suffix)
        told = (entry["kind"], who, whom, _why(entry))
        if told == last and entry["index"] == first_index + count:
            count += 1
            rows[-1] = (f"{first_index}-{entry['index']}", rows[-1][1], *told[:3], f"{count} times")
            continue
        last, first_index, count = told, entry["index"], 1
        rows.append((str(entry["index"]), entry["time"][11:19], *told))
    return rows


def _who(entry: Mapping[str, Any]) -> str:
    actor = str(entry.get("actor") or "")
    return "the officer" if actor.startswith("officer:") else actor.removeprefix("agent:")


def _with_whom(entry: Mapping[str, Any]) -> str:
    recipient, subject = entry.get("recipient") or "", entry.get("subject") or ""
    match str(entry["kind"]).partition("."):
        case ("envelope", _, _):
            return "all agents" if recipient == "*" else str(recipient)
        case ("session" | "delivery", _, _):
            return ""
    return str(subject)


def _why(entry: Mapping[str, Any]) -> str:
    parts = [str(entry["reason"])] if entry.get("reason") else []
    if str(entry["kind"]).startswith("delivery"):
        parts.append(str(entry["subject"]))
    if entry.get("issuer") and str(entry["kind"]).startswith("attestation"):
        parts.append(f"by {entry['issuer']}")
    if entry.get("score") is not None:
        parts.append(f"score {entry['score']}")
    return ", ".join(parts)
