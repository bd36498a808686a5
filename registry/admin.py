"""Every admin page of the registry, for Django; each lives in the folder of its concept."""

from django.contrib import admin

from registry.agents import admin as agents
from registry.attestations import admin as attestations
from registry.issuers import admin as issuers
from registry.officers import accounts
from registry.officers import admin as officers
from registry.officers.login import OfficerLoginForm
from registry.policies import admin as policies
from registry.scores import admin as scores
from registry.trail import admin as trail

__all__ = [
    "accounts",
    "agents",
    "attestations",
    "issuers",
    "officers",
    "policies",
    "scores",
    "trail",
]

admin.site.login_form = OfficerLoginForm
admin.site.site_header = "Agent Trust Protocol"
admin.site.site_title = "ATP"
admin.site.index_title = "Trust registry"
