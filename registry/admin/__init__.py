"""All admin pages of the registry, where Django looks for them, and the titles of the site."""

from django.contrib import admin

from registry.admin import agents as agents
from registry.admin import bulk as bulk
from registry.admin.attestations import pages as attestations
from registry.admin.issuers import pages as issuers
from registry.admin.officers import accounts, engagements, people
from registry.admin.officers import tokens as officers
from registry.admin.officers.login import OfficerLoginForm
from registry.admin.policies import pages as policies
from registry.admin.scores import pages as scores
from registry.admin.trail import pages as trail

__all__ = [
    "accounts",
    "agents",
    "attestations",
    "bulk",
    "engagements",
    "issuers",
    "officers",
    "people",
    "policies",
    "scores",
    "trail",
]

admin.site.login_form = OfficerLoginForm
admin.site.site_header = "Agent Trust Protocol"
admin.site.site_title = "ATP"
admin.site.index_title = "Trust registry"
