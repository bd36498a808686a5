"""Every write to agents, their organisations, keys and enrolment tokens.

Each action is one transaction. It bumps the epoch first: the lock on the epoch makes registry
changes run one after another. It appends its entries last.
"""

from registry.agents.actions.enrolment import (
    ENROLMENT_LIFE,
    IssuedToken,
    count_refused_enrolment,
    enrol_key,
    issue_enrolment_token,
)
from registry.agents.actions.keys import approve_key, refuse_key, revoke_key
from registry.agents.actions.life import (
    change_agent,
    register_agent,
    resume_agent,
    revoke_agent,
    suspend_agent,
)
from registry.agents.actions.organisations import (
    change_organisation,
    create_organisation,
    create_tag,
)

__all__ = [
    "ENROLMENT_LIFE",
    "IssuedToken",
    "approve_key",
    "change_agent",
    "change_organisation",
    "count_refused_enrolment",
    "create_organisation",
    "create_tag",
    "enrol_key",
    "issue_enrolment_token",
    "refuse_key",
    "register_agent",
    "resume_agent",
    "revoke_agent",
    "revoke_key",
    "suspend_agent",
]
