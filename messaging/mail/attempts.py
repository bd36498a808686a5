"""Count how often handlers of a delivery began and failed, and end those that failed too often.

Only an agent's word and the abnormal end of its socket count: never a delivery, and never the
death of a process of the hub (docs/protocol.md#acks).
"""

from __future__ import annotations

from typing import Final

MOST_FAILURES: Final = 5  # then the delivery is a dead letter; more are not counted
