"""Agents, their keys and organisations in the admin."""

from registry.agents.admin.agents import AgentAdmin
from registry.agents.admin.keys import AgentKeyAdmin, EnrolmentTokenAdmin
from registry.agents.admin.organisations import OrganisationAdmin, TagAdmin

__all__ = ["AgentAdmin", "AgentKeyAdmin", "EnrolmentTokenAdmin", "OrganisationAdmin", "TagAdmin"]
