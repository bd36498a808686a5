"""How many denials of a sender become rows and entries, which nobody may delete; more are counted.

An envelope that would pass is never in question: only what is denied anyway leaves less behind. So
nobody can silence an agent by having its envelopes denied.
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
    """The denials entered lately of the senders of a batch; read when the first is denied."""

    senders: Collection[str]
    now: float
    _in_minute: Counter[str] = field(default_factory=Counter)
    _in_hour: Counter[str] = field(default_factory=Counter)
    _loaded: bool = False

    def enter(self, sender: str) -> bool:
        """Whether one more denial of this sender is entered; it is counted as such then."""
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
