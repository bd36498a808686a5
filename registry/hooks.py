"""What the registry needs from traffic, asked through one short list that `messaging` fills."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass


@dataclass(slots=True)
class _Hooks:
    close_sockets: Callable[[Collection[str], str], None] | None = None
    online_agents: Callable[[Collection[str]], set[str]] | None = None


_hooks = _Hooks()


def fill(
    *,
    close_sockets: Callable[[Collection[str], str], None],
    online_agents: Callable[[Collection[str]], set[str]],
) -> None:
    """Install the traffic side; called once, when the apps are ready."""
    _hooks.close_sockets = close_sockets
    _hooks.online_agents = online_agents


def close_sockets(agents: Collection[str], code: str) -> None:
    """Close the sockets of these agents, on whatever node, once the transaction has committed."""
    if _hooks.close_sockets is None:
        raise RuntimeError("registry.hooks.fill() has not been called")
    _hooks.close_sockets(agents, code)


def online_agents(agents: Collection[str]) -> set[str]:
    """Those of these agents that have a live session on a live node."""
    if _hooks.online_agents is None:
        raise RuntimeError("registry.hooks.fill() has not been called")
    return _hooks.online_agents(agents)
