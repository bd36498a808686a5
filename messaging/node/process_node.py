"""The one node of this process, as the edge, the metrics and the health page ask for it."""

from __future__ import annotations

from django.db import close_old_connections

from atp.errors import FlowBusy
from messaging.node.node import ServingNode


class ProcessNode:
    """Owns this process's node: starts it, gives it out, drains it and stops it."""

    def __init__(self) -> None:
        self._node: ServingNode | None = None

    async def start(self) -> None:
        """Start the node; called once, by the ASGI lifespan."""
        close_old_connections()
        self._node = await ServingNode.begin()

    async def drain(self) -> None:
        """Make the node ready to be stopped; do nothing if there is none."""
        if (node := self._node) is not None:
            await node.drain()

    async def stop(self) -> None:
        """Stop the node; do nothing if there is none."""
        node, self._node = self._node, None
        if node is not None:
            await node.stop()

    def running(self) -> ServingNode | None:
        """The node, also while it drains; `None` where this process has none."""
        return self._node

    def is_ready(self) -> bool:
        """Whether this process has a node that takes connections."""
        return (node := self._node) is not None and not node.draining

    def is_busy(self) -> bool:
        """Return whether envelopes wait in this process to be judged."""
        return (node := self._node) is not None and node.envelope_lane.busy

    def current(self) -> ServingNode:
        """The node. Raises `FlowBusy` while it starts or stops."""
        if (node := self._node) is None or node.draining:
            raise FlowBusy("the hub is starting or stopping")
        return node


process_node = ProcessNode()
