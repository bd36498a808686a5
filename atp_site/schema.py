"""The schema of the API as a file, which no caller names."""

from __future__ import annotations

from typing import Any

from django.http import JsonResponse
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request

from atp.errors import MalformedDocument
from registry.api.errors import PROBLEM_JSON, problem_of

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
            problem = problem_of(MalformedDocument("the schema takes no parameter but format"))
            return JsonResponse(problem, status=400, content_type=PROBLEM_JSON)
        return super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]  # the library's
