"""The schema of the API as a file, which no caller names."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse, JsonResponse
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request

from atp.errors import MalformedDocument
from registry.api.errors import PROBLEM_JSON, handle

PARAMETERS = frozenset({"format"})


class SchemaView(SpectacularAPIView):
    """OpenAPI 3, as JSON or YAML by `Accept` or `format`.

    The library also reads a version and a language from the query, and puts the version into a
    header as it came; this hub has one of each.
    """

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        """Answer the schema; 400 for any parameter but `format`."""
        if set(request.query_params) - PARAMETERS:
            raise MalformedDocument("the schema takes no parameter but format")
        return super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]  # the library's

    def handle_exception(self, exc: Exception) -> HttpResponse:  # type: ignore[override]  # any will do
        """Answer with problem details as JSON, whatever the schema would be written as."""
        answer = handle(exc, {})
        if answer is None:
            raise exc
        problem = JsonResponse(answer.data, status=answer.status_code)
        for name, value in {**answer.headers, "Content-Type": PROBLEM_JSON}.items():
            problem.headers[name] = value
        problem.headers["Cache-Control"] = "no-store"
        return problem
