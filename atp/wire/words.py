"""The closed lists of words that envelopes, policies, scores and the registry have in common.

`LEVELS` and `SENSITIVITIES` are the values of `atp.types.TrustLevel` and `DataSensitivity`. Lists
with an order begin with the lowest.
"""

from __future__ import annotations

from atp.types import DataSensitivity, TrustLevel

__all__ = [
    "DEMO_SCORED_AS",
    "KEY_ALGORITHMS",
    "LEVELS",
    "SCORED_ALGORITHMS",
    "SENSITIVITIES",
    "SEVERITIES",
]

LEVELS = tuple(level.value for level in TrustLevel)
SENSITIVITIES = tuple(sensitivity.value for sensitivity in DataSensitivity)
SEVERITIES = ("low", "medium", "high", "critical")

KEY_ALGORITHMS = ("EdDSA", "ES256", "RS256", "PS256")  # of registered keys
DEMO_SCORED_AS = "demo"  # HS256, in memory only
SCORED_ALGORITHMS = (*KEY_ALGORITHMS, DEMO_SCORED_AS)  # what scores and rules can tell apart
