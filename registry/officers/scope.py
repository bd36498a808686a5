"""What an auditor may read of the trail: entries by organisation, and sections by side.

An account with an engagement reads what its scope says, everybody else reads everything. An entry
without organisations is common, except what people of the hub's operator did. Of a message, a scoped reader gets the section of its own side.
`personal` is never given to a scoped reader.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.contrib.auth.models import AbstractUser
from django.db.models import BinaryField, Case, F, Q, QuerySet, Value, When

from registry.officers.models import Engagement
from registry.trail.kinds import Kind

Rows = TypeVar("Rows", bound=QuerySet[Any, Any])

# Section of an entry's body -> the header's column with the organisation that may read it.
SIDES = {"sender": "sender_organisation", "recipient": "recipient_organisation"}
_NEVER = "personal"

# An entry of these without organisations is no common one: it tells what people of the hub's
# operator read and searched, or which agents the hub refused.
_ABOUT_THE_OPERATOR = {
    "admin", "engagement", "export", "group", "officer", "person", "refusals", "token", "traffic",
    "trail",
}  # fmt: skip
OF_THE_OPERATOR = tuple(kind for kind in Kind if kind.about in _ABOUT_THE_OPERATOR)


@dataclass(frozen=True, slots=True)
class Scope:
    """The organisations whose entries a reader gets, by uid; `None` is everything."""

    organisations: frozenset[str] | None

    @property
    def condition(self) -> Q | None:
        """Return the condition on entries that the reader may read; `None` if all are."""
        if self.organisations is None:
            return None
        within = Q(organisations="") & ~Q(kind__in=OF_THE_OPERATOR)
        for uid in sorted(self.organisations):
            within |= Q(organisations__contains=uid)
        return within

    def narrow(self, entries: Rows) -> Rows:
        """Return those of these entries that the reader may read.

        They still have all sections: read bodies by `columns`, or as `sections` says.
        """
        within = self.condition
        return entries if within is None else entries.filter(within)

    def columns(self, columns: Sequence[str]) -> list[Any]:
        """Return what to read of bodies in the place of these columns.

        A section that is not for the reader is null, as if it was erased.
        """
        if self.organisations is None:
            return list(columns)
        hidden = (*SIDES, _NEVER)
        return [self._section(name) if name in hidden else name for name in columns]

    def sections(self, entry: Any, names: Collection[str]) -> list[str]:
        """Return those sections of an entry that the reader may read."""
        if self.organisations is None:
            return list(names)
        return [name for name in names if self._may_read(entry, name)]

    def _may_read(self, entry: Any, name: str) -> bool:
        if name in SIDES:
            return getattr(entry, SIDES[name]) in (self.organisations or ())
        return name != _NEVER

    def _section(self, name: str) -> Any:
        nothing: Any = Value(None, output_field=BinaryField())
        if name == _NEVER:
            return nothing
        ours = Q(**{f"entry__{SIDES[name]}__in": sorted(self.organisations or ())})
        return Case(When(ours, then=F(name)), default=nothing)


EVERYTHING = Scope(None)


def scope_of(user: Any) -> Scope:
    """Return what `user` may read, as far as the right to read the trail goes."""
    if not isinstance(user, AbstractUser):
        return Scope(frozenset())
    engagement = Engagement.objects.filter(account=user.pk).first()
    if engagement is None or engagement.everything:
        return EVERYTHING
    return Scope(frozenset(engagement.organisations))
