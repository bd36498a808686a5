"""The admin pages of background tasks: what each one does, its last runs, when it is due."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern

from messaging.health.registered import registered_now
from messaging.health.state import state_of_hub, tasks_of
from messaging.models import BackgroundTask
from messaging.periodic.actions import run_now
from messaging.periodic.schedule import Scheduled, every_seconds, title_of
from registry.admin.pages import OfficerAdmin, Question, acting, posted

RUNS_SHOWN = 50
DRIVERS = ("beat", "worker", "broker")  # scheduled tasks run only while all of these work


@admin.register(BackgroundTask)
class BackgroundTaskAdmin(OfficerAdmin[BackgroundTask]):
    """A page for the schedule and one for each task; both are read-only."""

    def get_urls(self) -> list[URLPattern]:
        """Return the addresses of the officers' decisions, then Django's own."""
        return [self.decision_url("<str:object_id>/run/", self.run_view), *super().get_urls()]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return `False`: the schedule is part of the code."""
        return False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the schedule with the last run of each task, and failures of tasks on demand."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        registered = registered_now()
        others = [row for name, row in registered.tasks.items() if name not in every_seconds()]
        return self._show(
            request,
            "list.html",
            title="Background tasks",
            at=registered.now,
            tasks=tasks_of(registered),
            others=[(title_of(row.name), row) for row in others if row.failures],
            stalled=[part for part in state_of_hub().troubles if part.name in DRIVERS],
        )

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show one task of the schedule, with its last runs."""
        task = self._task(request, object_id, to_run=False)
        runs = task.row.last_runs.order_by("-pk")[: 2 * RUNS_SHOWN] if task.row else []
        return self._show(request, "page.html", title=task.title, task=task, runs=runs)

    def run_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask whether to run a task now; run it after a yes."""
        task = self._task(request, object_id, to_run=True)
        embedded = settings.CELERY_TASK_ALWAYS_EAGER
        question = Question(
            title=f"Run “{task.title}” now",
            text=f"{task.purpose} Its schedule stays as it is ({task.every}); an extra run does no"
            " harm. The trail records that you asked for it.",
            button="Run now",
            back=self.url("change", task.name),
            in_parts=True,
            facts=(("Task", task.name), ("Last run", task.state_in_words)),
            done="It has run. The result is shown below."
            if embedded
            else "It was sent to the workers. The run is shown below when a worker has started it.",
        )
        form = forms.Form(posted(request))
        return self.decide(request, form, question, acting(run_now, task.name))

    def _task(self, request: HttpRequest, object_id: str, *, to_run: bool) -> Scheduled:
        """Return the task of the schedule.

        Raises `PermissionDenied` if this person may not see it or, with `to_run`, not run it.
        Raises `Http404` if no such task is scheduled.
        """
        allowed = self.has_change_permission if to_run else self.has_view_permission
        if not allowed(request):
            raise PermissionDenied
        name = unquote(object_id)
        for task in tasks_of(registered_now()):
            if task.name == name:
                return task
        raise Http404

    def _show(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        return TemplateResponse(
            request,
            f"admin/messaging/backgroundtask/{template}",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "list_url": self.url("changelist"),
                "may_run": self.has_change_permission(request),
                **context,
            },
        )
