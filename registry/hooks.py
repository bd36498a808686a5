"""The functions that the registry calls in `messaging`, which it may not import.

`messaging/apps.py` sets them when Django starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session of an agent that is open now; one that is `send_only` takes no mail."""

    id: str
    send_only: bool
    opened_at: datetime
    address: str
    client: str


@dataclass(frozen=True, slots=True)
class Hooks:
    """The functions of `messaging`; see the functions of this module with the same names."""

    close_sockets: Callable[[Collection[str], str], None]
    online_agents: Callable[[Collection[str]], set[str]]
    open_sockets: Callable[[Collection[str]], int]
    live_sessions: Callable[[str], list[LiveSession]]
    open_dead_letters: Callable[[], int]


@dataclass(slots=True)
class _Filled:
    hooks: Hooks | None = None


_filled = _Filled()


def fill(hooks: Hooks) -> None:
    """Set the functions of `messaging`; call it once, when Django's apps are ready."""
    _filled.hooks = hooks


def close_sockets(agents: Collection[str], code: str) -> None:
    """Close the sockets of these agents on all nodes, once this transaction has committed.

    `code` is the error code that the agents are told. Raises `RuntimeError` before `fill`.
    """
    _hooks().close_sockets(agents, code)


def online_agents(agents: Collection[str]) -> set[str]:
    """Return those of these agents that are connected: a live session takes their mail.

    Raises `RuntimeError` before `fill`.
    """
    return _hooks().online_agents(agents)


def open_sockets(agents: Collection[str]) -> int:
    """Return how many sockets these agents have, those that only send included.

    Raises `RuntimeError` before `fill`.
    """
    return _hooks().open_sockets(agents)


def live_sessions(agent: str) -> list[LiveSession]:
    """Return the sessions of an agent that are open now, the oldest first.

    Raises `RuntimeError` before `fill`.
    """
    return _hooks().live_sessions(agent)


def open_dead_letters() -> int:
    """Return how many dead letters officers can still redeliver.

    Raises `RuntimeError` before `fill`.
    """
    return _hooks().open_dead_letters()


def _hooks() -> Hooks:
    if _filled.hooks is None:
        raise RuntimeError("registry.hooks.fill() has not been called")
    return _filled.hooks
