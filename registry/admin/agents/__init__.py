"""Agents, their keys and organisations in the admin."""

from registry.admin.agents.agents import AgentAdmin
from registry.admin.agents.keys import AgentKeyAdmin, EnrolmentTokenAdmin
from registry.admin.agents.organisations import OrganisationAdmin, TagAdmin

__all__ = ["AgentAdmin", "AgentKeyAdmin", "EnrolmentTokenAdmin", "OrganisationAdmin", "TagAdmin"]
