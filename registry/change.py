"""The one way to write rows of the registry: the epoch first, then rows, entries of the trail last.

The lock on the epoch makes changes run one after another. The first entry takes the log lock, so it
is held only from the last write to the commit. `tests/registry/test_registry_writes.py` finds rows
that are written elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from django.db import transaction

from registry.hub.actions import bump_epoch
from registry.officers.actor import Actor
from registry.trail.actions import MOST_ENTRIES, EntryDraft, append

Noted = Callable[[int], object]


class ChangedMeanwhile(Exception):
    """Another person changed it after this one had opened it; the message says what to do."""


@dataclass(slots=True)
class Change:
    """A registry change in progress: its actor, and the entries that it will append."""

    actor: Actor
    moves_epoch: bool
    _drafts: list[EntryDraft] = field(default_factory=list)
    _noted: list[tuple[int, Noted]] = field(default_factory=list)  # by the draft's position

    def enter(self, *drafts: EntryDraft) -> None:
        """Add entries in this order. An entry without an actor gets the actor of the change."""
        name = self.actor.name
        self._drafts += [draft if draft.actor else replace(draft, actor=name) for draft in drafts]

    def enter_noted(self, draft: EntryDraft, note: Noted) -> None:
        """Add an entry, and call `note` with its position in the trail after it is appended.

        `note` runs while the log lock is held. So it may write only to rows that the change has
        locked already, or two transactions could wait for each other.
        """
        self._noted.append((len(self._drafts), note))
        self.enter(draft)

    def take_over(self, inner: Change) -> None:
        """Add the entries of an inner change to this one's entries."""
        position = len(self._drafts)
        self._noted += [(position + at, note) for at, note in inner._noted]
        self._drafts += inner._drafts

    def append_entries(self) -> None:
        """Append all entries, at most `MOST_ENTRIES` at a time; then call every `note`."""
        positions: list[int] = []
        for start in range(0, len(self._drafts), MOST_ENTRIES):
            chunk = self._drafts[start : start + MOST_ENTRIES]
            first = append(chunk)
            positions += range(first, first + len(chunk))
        for at, note in self._noted:
            note(positions[at])


_current: ContextVar[Change | None] = ContextVar("registry change", default=None)


@contextmanager
def registry_change(actor: Actor, *, moves_epoch: bool = True) -> Iterator[Change]:
    """Open a transaction for a change by `actor`; append its entries when the block ends.

    Pass `moves_epoch=False` only if no judgement depends on the rows: scores, API tokens, notices
    seen. After an exception in the block, none of its rows and entries are kept.

    A change inside another one is a savepoint; its entries are appended with those of the outer
    one. Raises `RuntimeError` if the inner one moves the epoch and the outer one does not: rows
    would be locked before the epoch. Raises `HubMissing` if there is no hub row.
    """
    outer = _current.get()
    change = Change(actor, moves_epoch)
    if outer is not None and moves_epoch and not outer.moves_epoch:
        raise RuntimeError("the outer change has to move the epoch, because this one does")
    with transaction.atomic():
        if moves_epoch and outer is None:
            bump_epoch()
        token = _current.set(change)
        try:
            yield change
        finally:
            _current.reset(token)
        if outer is None:
            change.append_entries()
    if outer is not None:
        outer.take_over(change)
