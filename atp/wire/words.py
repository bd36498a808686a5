"""The closed lists of words that envelopes, policies, scores and the registry share.

`LEVELS` and `SENSITIVITIES` are the values of `atp.types.TrustLevel` and `DataSensitivity`.
`LEVELS`, `SENSITIVITIES` and `SEVERITIES` are in rising order.
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
DEMO_SCORED_AS = "demo"  # HS256, over the in-memory transport only
SCORED_ALGORITHMS = (*KEY_ALGORITHMS, DEMO_SCORED_AS)  # what scores and rules distinguish
