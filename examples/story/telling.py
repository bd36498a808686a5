"""The state that chapters share: the roles, the hub, the officer, and the record so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from examples.story.cast import Outcome, Player, Role
from examples.story.officer import Officer
from examples.story.stage import Stage
from examples.story.timeline import Record
from examples.story.voice import Voice

__all__ = ["ROLES", "Telling", "numbers_in_words", "open_telling"]

HOUSE: Final = "Meridian"  # the organisation of three roles
ROLES: Final = (
    Role(
        "analyst",
        "a certified financial analyst",
        "Ada Lind",
        "certified",
        ("finance.analysis", "finance.reports"),
        HOUSE,
    ),
    Role(
        "health",
        "a verified healthcare processor",
        "Ben Okoro",
        "verified",
        ("health.records", "health.statistics"),
        HOUSE,
        minimum_level="verified",
    ),
    Role("newcomer", "an unverified newcomer", "Chen Wu", "unverified", ("chat.general",), HOUSE),
    Role(
        "mallory",
        "a verified agent of another house, and a hostile one",
        "Dora Voss",
        "verified",
        ("finance.reports",),
        "Vantage",
    ),
)


@dataclass
class Telling:
    """The state that all chapters share."""

    voice: Voice
    stage: Stage
    officer: Officer
    cast: dict[str, Player]
    first_entry: int
    record: Record = field(default_factory=Record)
    shown: list[tuple[str, str]] = field(default_factory=list)

    def agent(self, name: str) -> str:
        """Return the id of a role's agent."""
        return self.cast[name].agent

    def show(self, what: str, *outcomes: Outcome, told: str = "") -> None:
        """Add a row to the summary: what was shown, and `told` or the entries of the outcomes."""
        receipts = [receipt for outcome in outcomes for receipt in outcome.receipts]
        self.record.note(receipts)
        numbers = sorted({r["entry"] for r in receipts if r["entry"] is not None})
        self.shown.append((what, told or numbers_in_words(numbers)))

    def decide(self, kind: str, agent: str) -> None:
        """Note a decision of the officer, to look it up in the trail later."""
        self.record.decisions.append((kind, agent))


def open_telling(voice: Voice, stage: Stage, officer: Officer) -> Telling:
    """Sign the officer in, note the size of the trail, and return the state of a new story."""
    officer.sign_in(stage.officer, stage.password)
    cast = {
        role.name: Player(role, f"{role.name}-{stage.suffix}", stage.folder, stage.url)
        for role in ROLES
    }
    return Telling(voice, stage, officer, cast, officer.trail_size())


def numbers_in_words(numbers: Sequence[int]) -> str:
    """Return entry numbers as text: all of up to three, else the first and the last."""
    if len(numbers) <= 3:
        return ", ".join(map(str, numbers)) or "-"
    return f"{numbers[0]} ... {numbers[-1]}"
