"""Where refused sign-ins came from, kept until their sum is entered.

A caller chooses its browser's name, and a network has many addresses. So of each name and minute
only some places are kept; `RefusalCount` counts all attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models import F, Sum

from registry.trail.models import RefusalCount, RefusedSignIn

MOST_PLACES = 20  # kept of one name in a minute, and named by one entry


def note_refused_sign_in(name: str, now: datetime, *, address: str, browser: str) -> None:
    """Keep address and browser of an attempt with this hashed name, in the caller's transaction."""
    rows = RefusedSignIn.objects.filter(name=name, minute=now.replace(second=0, microsecond=0))
    if rows.filter(address=address, browser=browser).update(count=F("count") + 1):
        return
    if rows.count() < MOST_PLACES:
        minute = now.replace(second=0, microsecond=0)
        RefusedSignIn.objects.get_or_create(
            name=name, minute=minute, address=address, browser=browser
        )


def take_places(name: str, counts: Sequence[RefusalCount]) -> dict[str, Any]:
    """Return the section `personal` about the attempts of these minutes, and forget them."""
    rows = RefusedSignIn.objects.filter(name=name, minute__in=[row.minute for row in counts])
    places = rows.values("address", "browser").annotate(n=Sum("count")).order_by("-n", "address")
    found = [
        {"address": place["address"], "browser": place["browser"], "count": place["n"]}
        for place in places[:MOST_PLACES]
    ]
    rows.delete()
    return {"from": found} if found else {}
