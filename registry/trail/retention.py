"""How long sections of entries are kept: rules by kind and sensitivity, from the settings.

A rule is `kinds[/sensitivity][#section]=days:reason`. A rule never covers an entry that states what
was in force (a policy, a key, an agent, an attestation), because decisions are derived from those.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Q

from atp.log import leaves
from atp.wire.words import SENSITIVITIES
from registry.trail.kinds import Kind, kinds_named
from registry.trail.models import Erasure

# Entries about traffic and about people who use the hub. All other kinds are kept for good.
ERASABLE = frozenset(
    {"envelope", "delivery", "session", "refusals", "admin", "trail", "export", "task"}
)
YEAR_DAYS = 365
PRESETS = {"6-months": 183, "6-years": 6 * YEAR_DAYS + 2, "10-years": 10 * YEAR_DAYS + 3}


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """For how long sections of some entries are kept, and why they are erased then."""

    kinds: tuple[Kind, ...]
    sensitivity: str  # "" means any
    sections: tuple[str, ...]
    period: timedelta
    reason: str

    @property
    def covers(self) -> Q:
        """Return the condition on the entries."""
        found = Q(kind__in=self.kinds)
        return found & Q(sensitivity=self.sensitivity) if self.sensitivity else found


def parse_retention(text: str) -> tuple[RetentionRule, ...]:
    """Parse the setting `ATP_RETENTION`: the name of a preset, or rules with commas between them.

    An empty text keeps everything. Raises `ImproperlyConfigured` if a rule can't be read.
    """
    if not text.strip():
        return ()
    if text.strip() in PRESETS:
        return (_preset(text.strip()),)
    return tuple(_rule(part.strip()) for part in text.split(","))


def _preset(name: str) -> RetentionRule:
    kinds = tuple(kind for kind in Kind if kind.about in ERASABLE)
    period, reason = timedelta(days=PRESETS[name]), f"retention.{name}"
    return RetentionRule(kinds, "", leaves.SECTIONS, period, reason)


def _rule(text: str) -> RetentionRule:
    which, _, much = text.partition("=")
    days, _, reason = much.partition(":")
    which, _, section = which.partition("#")
    kind, _, sensitivity = which.partition("/")
    kinds = tuple(one for one in kinds_named(kind) if one.about in ERASABLE)
    if not kinds:
        raise ImproperlyConfigured(f"ATP_RETENTION: {kind!r} names no kind that may be erased.")
    if sensitivity and sensitivity not in SENSITIVITIES:
        raise ImproperlyConfigured(f"ATP_RETENTION: {sensitivity!r} is not a sensitivity.")
    if section and section not in leaves.SECTIONS:
        raise ImproperlyConfigured(f"ATP_RETENTION: {section!r} is not a section.")
    if not (days.isascii() and days.isdecimal() and 0 < int(days) <= 100 * YEAR_DAYS):
        raise ImproperlyConfigured(f"ATP_RETENTION: {days!r} is not a number of days.")
    if not 1 <= len(reason) <= Erasure.REASON_MAX_CHARS:
        raise ImproperlyConfigured(f"ATP_RETENTION: {text!r} needs a reason, as in =183:contract.")
    sections = (section,) if section else leaves.SECTIONS
    return RetentionRule(kinds, sensitivity, sections, timedelta(days=int(days)), reason)
