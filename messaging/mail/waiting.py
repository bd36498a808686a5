"""Conditions for the deliveries of a mailbox that are not done."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Q

from atp.wire.ranges import Range
from messaging.mail.done_places import DonePlaces
from messaging.models import Mailbox

__all__ = ["at_places", "done_in", "places_not_done", "places_not_settled"]


def done_in(box: Mailbox) -> DonePlaces:
    """Return the places of a mailbox that are done."""
    return DonePlaces(box.acked_seq, box.done_ahead or ())


def places_not_settled(box: Mailbox, *, after: int = 0) -> Q:
    """Return the condition for the deliveries of a mailbox that may wait, behind `after`.

    It leads to no row in front of the first that waits, and to none that is done.
    """
    return places_not_done(box, after=max(after, box.settled_seq))


def places_not_done(box: Mailbox, *, after: int) -> Q:
    """Return the condition for the places of a mailbox behind `after` that are not done.

    Some of them may have ended, and some may have notices, which never wait for a handler.
    """
    stream = Q(recipient_id=box.agent_id, stream=box.stream)
    done = done_in(box)
    end = done.ahead[-1][1] if done.ahead else 0
    if end <= after:
        return stream & Q(seq__gt=after)
    gaps = list(done.gaps(after, end))
    behind = Q(seq__gt=end)
    return stream & (behind | at_places(gaps) if gaps else behind)


def at_places(ranges: Sequence[Range]) -> Q:
    """Return the condition for the places of these ranges, of which there are few."""
    if len(ranges) == 1:
        return Q(seq__range=ranges[0])
    return Q(seq__any_of=[seq for first, last in ranges for seq in range(first, last + 1)])
