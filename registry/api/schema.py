"""The OpenAPI description of the API: each operation names the problems that it answers with."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.authentication import TokenScheme
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from registry.api.errors import PROBLEM_JSON


class ProblemSerializer(serializers.Serializer[dict[str, Any]]):
    """Problem details (RFC 9457). Programs compare `code` only."""

    type = serializers.CharField(help_text="A URN of the code, or about:blank.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What was wrong, where, and what to do.")
    code = serializers.CharField(help_text="A code of docs/errors.md, or `http.` and a word.")
    retryAfter = serializers.FloatField(required=False, help_text="Seconds to wait.")
    errors: Any = serializers.DictField(required=False, help_text="By parameter, what is wrong.")


class BearerScheme(TokenScheme):  # type: ignore[no-untyped-call]  # the library's
    """The security scheme of `Authorization: Bearer`; the library finds it by its base class."""

    target_class = "registry.api.auth.BearerAuthentication"
    name = "bearerAuth"
    match_subclasses = False
    priority = 1


class ProblemSchema(AutoSchema):
    """Adds the problems of each view, and the media type that they have."""

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        for status in sorted(self._problem_statuses()):
            known = bodies.get(str(status), {}).get("content", {})
            problem = self._get_response_for_code(  # type: ignore[no-untyped-call]
                ProblemSerializer, str(status), media_types=[PROBLEM_JSON], direction=direction
            )
            problem["description"] = HTTPStatus(status).phrase
            problem["content"] = {**known, **problem["content"]}
            bodies[str(status)] = problem
        return bodies

    def _problem_statuses(self) -> set[int]:
        statuses = {400, 503, *getattr(self.view, "problem_statuses", ())}
        if getattr(self.view, "authentication_classes", ()):
            statuses |= {401, 403}
        if "{" in self.path:
            statuses.add(404)
        return statuses
