"""Limit how many denials of a sender become rows and entries, which stay for good; count the rest.

The limit never denies an envelope: it only reduces what a denied one leaves behind. So an attacker
can't silence an agent by causing denials. The first denials with each code are always entered, so
that a sender can't hide one kind of denial behind many of another kind.
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
FIRST_OF_A_CODE = 10  # in an hour; there are few codes, so this has an end, too


@dataclass(slots=True)
class DenialBudget:
    """The denials entered lately of the senders of a batch; read when the first is denied."""

    senders: Collection[str]
    now: float
    _in_minute: Counter[str] = field(default_factory=Counter)
    _in_hour: Counter[str] = field(default_factory=Counter)
    _of_code: Counter[tuple[str, str]] = field(default_factory=Counter)  # in the hour
    _loaded: bool = False

    def enter(self, sender: str, code: str) -> bool:
        """Whether one more denial of this sender is entered; it is counted as such then."""
        if not self._loaded:
            self._load()
        if self._is_over(sender) and self._of_code[sender, code] >= _first_of_a_code():
            return False
        self._in_minute[sender] += 1
        self._in_hour[sender] += 1
        self._of_code[sender, code] += 1
        return True

    def _is_over(self, sender: str) -> bool:
        return (
            self._in_minute[sender] >= settings.ATP_DENIALS_PER_MINUTE
            or self._in_hour[sender] >= settings.ATP_DENIALS_PER_HOUR
        )

    def _load(self) -> None:
        self._loaded = True
        now = datetime.fromtimestamp(self.now, UTC)
        rows = Envelope.objects.filter(
            sender_id__in=self.senders, status=Envelope.Status.DENIED, judged_at__gt=now - HOUR
        ).order_by()
        lately = Count("id", filter=Q(judged_at__gt=now - MINUTE))
        counts = rows.values_list("sender_id", "code").annotate(hour=Count("id"), minute=lately)
        for sender, code, in_hour, in_minute in counts:
            self._of_code[sender, code] = in_hour
            self._in_hour[sender] += in_hour
            self._in_minute[sender] += in_minute


def _first_of_a_code() -> int:
    return min(FIRST_OF_A_CODE, settings.ATP_DENIALS_PER_MINUTE, settings.ATP_DENIALS_PER_HOUR)
