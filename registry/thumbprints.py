"""One key, one purpose: a thumbprint is unique over agents, issuers and hub.

See docs/design/trust.md#issuers.
"""

from __future__ import annotations

from atp.errors import KeyInUse
from registry.agents.models import AgentKey
from registry.hub.models import HubKey
from registry.issuers.models import IssuerKey


def check_unused(kid: str) -> None:
    """Raise `KeyInUse` if the thumbprint is or was registered, for any owner.

    Call it inside a `registry_change`: its lock keeps two registrations of the same key from
    passing this check at the same time.
    """
    if any(model.objects.filter(kid=kid).exists() for model in (AgentKey, IssuerKey, HubKey)):
        raise KeyInUse("this key is registered already; make a new one")
