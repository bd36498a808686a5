"""A limit on the cost of a sender's broadcasts: by count and by deliveries of the last seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db.models import Count

from atp.errors import FlowThrottled
from atp.types import BROADCAST_TARGET
from messaging.models import Envelope

MOST_BROADCASTS = 16  # of one sender that are not fanned out yet; then it is throttled
# (seconds, the most that a sender's broadcasts may cost in them)
BROADCAST_LIMITS = ((0.25, 250), (10.0, 10_000))
BROADCAST_COST = 40  # of one broadcast, in addition to its deliveries


@dataclass(slots=True)
class BroadcastBudget:
    """Broadcasts that wait for their fan-out by sender, and costs by sender and period."""

    waiting: Counter[str] = field(default_factory=Counter)
    costs: Counter[tuple[str, float]] = field(default_factory=Counter)

    def load(self, senders: Collection[str], now: float) -> None:
        """Read the recent broadcasts of these senders."""
        pending = Envelope.objects.filter(sender_id__in=senders, fan_out__isnull=False)
        self.waiting.update(dict(pending.values_list("sender_id").annotate(n=Count("id"))))
        self._load_costs(senders, datetime.fromtimestamp(now, UTC))

    def note(self, sender: str, recipients: int) -> None:
        """Count a broadcast that was accepted, for that many recipients."""
        self.waiting[sender] += 1
        for seconds, _ in BROADCAST_LIMITS:
            self.costs[sender, seconds] += recipients + BROADCAST_COST

    def note_refused(self, sender: str, audience: int) -> None:
        """Count, in this batch only, a broadcast that was judged for `audience` and refused."""
        for seconds, _ in BROADCAST_LIMITS:
            self.costs[sender, seconds] += audience + BROADCAST_COST

    def excess(self, sender: str) -> FlowThrottled | None:
        """Return why this sender may not broadcast now and when to try again; `None` if it may."""
        if self.waiting[sender] >= MOST_BROADCASTS:
            detail = "wait until your earlier broadcasts have reached their audiences"
            return FlowThrottled(detail, retry_after=BROADCAST_LIMITS[0][0])
        for seconds, limit in BROADCAST_LIMITS:
            if self.costs[sender, seconds] >= limit:
                detail = f"your broadcasts cost the hub too much in {seconds:g} s; wait a little"
                return FlowThrottled(detail, retry_after=seconds / 2)
        return None

    def _load_costs(self, senders: Collection[str], now: datetime) -> None:
        """Add up what their broadcasts have cost; the limits keep the number of rows small."""
        longest = max(seconds for seconds, _ in BROADCAST_LIMITS)
        rows = Envelope.objects.filter(
            sender_id__in=senders,
            status=Envelope.Status.ACCEPTED,
            judged_at__range=(now - timedelta(seconds=longest), now),
            target=BROADCAST_TARGET,
        ).order_by()
        for sender, judged_at, n in rows.values_list("sender_id", "judged_at", "recipients"):
            for seconds, _ in BROADCAST_LIMITS:
                if judged_at > now - timedelta(seconds=seconds):
                    self.costs[sender, seconds] += n + BROADCAST_COST
