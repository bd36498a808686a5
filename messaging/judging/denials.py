"""A limit on the denials of a sender that become rows and entries; further ones are only counted.

Entries are never deleted, so a flood of denials would fill the trail. The limit changes no verdict:
it decides only how a denial is recorded. So an attacker can't use it to silence an agent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db.models import Count, Q

from messaging.models import Envelope

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@dataclass(slots=True)
class DenialBudget:
    """The recent denials of the senders of a batch, read when the first envelope is denied."""

    senders: Collection[str]
    now: float
    _in_minute: Counter[str] = field(default_factory=Counter)
    _in_hour: Counter[str] = field(default_factory=Counter)
    _loaded: bool = False

    def enter(self, sender: str) -> bool:
        """Return whether one more denial of this sender is entered; if so, count it."""
        if not self._loaded:
            self._load()
        if (
            self._in_minute[sender] >= settings.ATP_DENIALS_PER_MINUTE
            or self._in_hour[sender] >= settings.ATP_DENIALS_PER_HOUR
        ):
            return False
        self._in_minute[sender] += 1
        self._in_hour[sender] += 1
        return True

    def _load(self) -> None:
        self._loaded = True
        now = datetime.fromtimestamp(self.now, UTC)
        rows = Envelope.objects.filter(
            sender_id__in=self.senders, status=Envelope.Status.DENIED, judged_at__gt=now - HOUR
        ).order_by()
        lately = Count("id", filter=Q(judged_at__gt=now - MINUTE))
        counts = rows.values_list("sender_id").annotate(hour=Count("id"), minute=lately)
        for sender, in_hour, in_minute in counts:
            self._in_hour[sender], self._in_minute[sender] = in_hour, in_minute
