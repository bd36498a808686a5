"""The admin page on the state of the hub: each part, and what to do about it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from messaging.health.state import is_silent, state_of_hub
from messaging.models import Process
from registry.admin.pages import ReadOnlyAdmin


@admin.register(Process)
class ProcessAdmin(ReadOnlyAdmin[Process]):
    """One page for all processes, where Django shows a list; a process has no page."""

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the state of the hub. Raises `PermissionDenied` without the right to view it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        state = state_of_hub()
        registered = state.registered
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "State of the hub",
            "list_url": self.url("changelist"),
            "state": state,
            "nodes": registered.nodes if registered else [],
            "processes": [(row, is_silent(row, registered.now)) for row in registered.processes]
            if registered
            else [],
        }
        return TemplateResponse(request, "admin/messaging/process/state.html", context)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Raise `Http404`: a process has no page of its own."""
        raise Http404
