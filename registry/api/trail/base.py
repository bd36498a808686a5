"""What the views of the trail share: who may read, and how a reading is entered."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from rest_framework.exceptions import ValidationError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from registry.api.auth import HasPermission, ProblemView
from registry.officers.actor import Actor
from registry.trail.actions import record_reading
from registry.trail.kinds import Kind
from registry.trail.reading.filters import UnreadableQuery, asked_record
from registry.trail.reading.formats import FORMATS, Format

PAGE_ENTRIES = 100  # if the request has no `limit`
MOST_PAGE_ENTRIES = 1000


class _FormatIsOurs(DefaultContentNegotiation):
    """Leaves the parameter `format` to the views: the framework answers an unknown one with 404."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[Any, str]:
        return renderers[0], renderers[0].media_type


class TrailView(ProblemView):
    """A view for officers and auditors. `HEAD` checks the request and reads nothing."""

    required_permission = "registry.view_entry"
    permission_classes = (IsAuthenticated, HasPermission)
    http_method_names = ["get", "head", "options"]
    content_negotiation_class = _FormatIsOurs

    def head(self, request: Request, **named: Any) -> HttpResponse:
        """Answer without content: account and parameters are checked, and nothing is read."""
        self.check_parameters(request)
        return HttpResponse(content_type="application/json")

    def handle_exception(self, exc: Exception) -> Response:
        """Answer 400 if the query can't be read."""
        if isinstance(exc, UnreadableQuery):
            exc = ValidationError(dict(exc.problems))
        return super().handle_exception(exc)

    def check_parameters(self, request: Request) -> Any:
        """Raise `UnreadableQuery` if `get` would refuse the parameters."""
        raise NotImplementedError


def record(request: Request, kind: Kind, subject: str, asked: Any) -> int:
    """Enter a reading before it happens; return the number of entries before it."""
    actor = Actor.of_user(request.user)
    return record_reading(kind, actor, subject=subject, asked={"asked": asked_record(asked)})


def limit_of(text: str) -> int:
    """Return how many entries a page may have. Raises `UnreadableQuery` if it can't be read."""
    if text.isascii() and text.isdecimal() and len(text) <= 4:
        limit = int(text)
        if 1 <= limit <= MOST_PAGE_ENTRIES:
            return limit
    raise UnreadableQuery({"limit": [f"must be a whole number from 1 to {MOST_PAGE_ENTRIES}"]})


def format_of(names: list[str]) -> Format:
    """Return the format that is named. Raises `UnreadableQuery` if it is not exactly one."""
    if len(names) != 1 or names[0] not in FORMATS:
        raise UnreadableQuery({"format": [f"must be one of {', '.join(FORMATS)}"]})
    return FORMATS[names[0]]
