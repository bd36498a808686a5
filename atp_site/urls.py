"""Every URL of the hub."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerSplitView

from atp_site import health, metrics
from atp_site.schema import SchemaView
from registry.admin.officers.accounts import change_own_password
from registry.admin.officers.engagements import open_engagement
from registry.admin.officers.login import officer_login

handler400 = "atp_site.error_pages.bad_request"
handler403 = "atp_site.error_pages.permission_denied"
handler404 = "atp_site.error_pages.page_not_found"
handler500 = "atp_site.error_pages.server_error"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
    path("admin/login/", officer_login),  # reversed as admin:login, as the admin has it
    path("admin/password_change/", admin.site.admin_view(change_own_password, cacheable=True)),
    path("engagement/<str:secret>/", open_engagement, name="engagement"),
    path("admin/", admin.site.urls),
    path("api/v1/health", health.HealthView.as_view(), name="health"),
    path("api/v1/", include("registry.api.urls")),
    path("api/schema/", SchemaView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(), name="docs"),
]
