"""URLs of the registry's API, below /api/v1/."""

from __future__ import annotations

from django.urls import path

from registry.api.agents import AgentDetailView, AgentListView, EnrolView
from registry.api.hub import HubView
from registry.api.issuers import IssuerKeysView, StatusListView
from registry.api.trail.views import urlpatterns as provenance

urlpatterns = [
    path("hub", HubView.as_view(), name="hub"),
    path("enrol", EnrolView.as_view(), name="enrol"),
    path("agents/", AgentListView.as_view(), name="agents"),
    path("agents/<str:pk>/", AgentDetailView.as_view(), name="agent"),
    path("issuers/<slug:slug>/jwks.json", IssuerKeysView.as_view(), name="issuer-keys"),
    path("issuers/<slug:slug>/status-list", StatusListView.as_view(), name="issuer-status-list"),
    *provenance,
]
