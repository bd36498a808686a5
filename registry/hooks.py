"""The functions that the registry calls in `messaging`, which it may not import.

`messaging/apps.py` sets them when Django starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass


@dataclass(slots=True)
class _Hooks:
    close_sockets: Callable[[Collection[str], str], None] | None = None
    online_agents: Callable[[Collection[str]], set[str]] | None = None
    open_dead_letters: Callable[[], int] | None = None


_hooks = _Hooks()


def fill(
    *,
    close_sockets: Callable[[Collection[str], str], None],
    online_agents: Callable[[Collection[str]], set[str]],
    open_dead_letters: Callable[[], int],
) -> None:
    """Set the functions of `messaging`; call it once, when Django's apps are ready."""
    _hooks.close_sockets = close_sockets
    _hooks.online_agents = online_agents
    _hooks.open_dead_letters = open_dead_letters


def close_sockets(agents: Collection[str], code: str) -> None:
    """Close the sockets of these agents on all nodes, once this transaction has committed.

    `code` is the error code that the agents are told. Raises `RuntimeError` before `fill`.
    """
    if _hooks.close_sockets is None:
        raise RuntimeError("registry.hooks.fill() has not been called")
    _hooks.close_sockets(agents, code)


def online_agents(agents: Collection[str]) -> set[str]:
    """Return those of these agents that are connected: a live session on a live node.

    Raises `RuntimeError` before `fill`.
    """
    if _hooks.online_agents is None:
        raise RuntimeError("registry.hooks.fill() has not been called")
    return _hooks.online_agents(agents)


def open_dead_letters() -> int:
    """Return how many dead letters officers can still redeliver.

    Raises `RuntimeError` before `fill`.
    """
    if _hooks.open_dead_letters is None:
        raise RuntimeError("registry.hooks.fill() has not been called")
    return _hooks.open_dead_letters()
