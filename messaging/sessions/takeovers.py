"""Count takeovers: sessions whose sockets were open when another login of the agent came.

The node that closes such a socket counts it. The login can't: it does not know whether the socket
of the session that it replaces is still open, perhaps on another node.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from django.db import transaction

from messaging.models import Presence

logger = logging.getLogger(__name__)

ALARMING_TAKEOVERS = 5  # sessions of one agent taken over in a row, before officers are told


def count_takeovers(agents: Iterable[str]) -> None:
    """Count one takeover for each of `agents`; raise an alarm at each fifth of an agent.

    The count begins anew when the agent's current session ends without another one.
    """
    counts = Counter(agents)
    with transaction.atomic():
        rows = Presence.objects.select_for_update().filter(agent_id__in=counts)
        present = list(rows.order_by("agent_id"))
        for row in present:
            row.takeovers += counts[row.agent_id]
        Presence.objects.bulk_update(present, ["takeovers"])
    for row in present:
        before = row.takeovers - counts[row.agent_id]
        if row.takeovers // ALARMING_TAKEOVERS > before // ALARMING_TAKEOVERS:
            logger.critical(
                "the session of agent %s was taken over %d times", row.agent_id, row.takeovers
            )
