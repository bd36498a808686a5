"""Template tags: the state of the hub for the admin's first page, and durations in words."""

from __future__ import annotations

from datetime import UTC, datetime

from django import template

from messaging.health.state import HubState, state_of_hub

register = template.Library()


@register.simple_tag
def hub_state() -> HubState:
    """Return the state of the hub; takes up to 3 s if a part does not answer."""
    return state_of_hub()


@register.filter
def ago(at: datetime) -> str:
    """Return the age of a time: `12 s ago`, `2 h ago`, `5 days ago`; `in 12 s` for the future."""
    seconds = (datetime.now(UTC) - at).total_seconds()
    words = _length(abs(seconds))
    return f"{words} ago" if seconds >= 0 else f"in {words}"


@register.filter
def took(seconds: float) -> str:
    """Return a duration in words: `12 ms` or `1.4 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _length(seconds: float) -> str:
    for size, unit in ((172_800, 86_400), (7_200, 3_600), (120, 60)):
        if seconds >= size:
            count = round(seconds / unit)
            return f"{count} {'days' if unit == 86_400 else 'h' if unit == 3_600 else 'min'}"
    return f"{seconds:.0f} s"
