"""The state of the hub for the admin's first page, and ages in words."""

from __future__ import annotations

from datetime import UTC, datetime

from django import template

from messaging.health.state import HubState, state_of_hub

register = template.Library()


@register.simple_tag
def hub_state() -> HubState:
    """Looks at every part; takes seconds only where one does not answer."""
    return state_of_hub()


@register.filter
def ago(at: datetime) -> str:
    """`12 s ago`, `3 min ago`, `2 h ago`, `5 days ago`; `in 12 s` for what is to come."""
    seconds = (datetime.now(UTC) - at).total_seconds()
    words = _length(abs(seconds))
    return f"{words} ago" if seconds >= 0 else f"in {words}"


@register.filter
def took(seconds: float) -> str:
    """`12 ms`, `1.4 s`, `3 min`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _length(seconds: float) -> str:
    for size, unit in ((172_800, 86_400), (7_200, 3_600), (120, 60)):
        if seconds >= size:
            count = round(seconds / unit)
            return f"{count} {'days' if unit == 86_400 else 'h' if unit == 3_600 else 'min'}"
    return f"{seconds:.0f} s"
