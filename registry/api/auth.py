"""Authentication of the API: a person's session of the admin, or an API token of a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rest_framework import exceptions
from rest_framework.authentication import (
    BaseAuthentication,
    SessionAuthentication,
    TokenAuthentication,
)
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from registry.api.errors import handle
from registry.officers.models import ApiToken
from registry.token_hash import hash_token


class ApiTokenAuthentication(TokenAuthentication):
    """Authenticates `Authorization: Token <token>`. The database stores only the token's hash."""

    def authenticate_credentials(self, key: str) -> tuple[Any, Any]:
        """Return (user, token); raise `AuthenticationFailed` if the token is not valid now."""
        now = datetime.now(UTC)
        token = (
            ApiToken.objects.select_related("user")
            .filter(token_hash=hash_token(key), revoked_at=None, expires_at__gt=now)
            .first()
        )
        if token is None or not token.user.is_active:
            raise exceptions.AuthenticationFailed("The token is unknown, expired or revoked.")
        return token.user, token


class BearerAuthentication(ApiTokenAuthentication):
    """Authenticates `Authorization: Bearer <token>` (RFC 6750) with the same tokens."""

    keyword = "Bearer"


# The framework asks the first class for a challenge. Token has one, so a call without an account is
# answered with 401, not 403.
AUTHENTICATION: tuple[type[BaseAuthentication], ...] = (
    ApiTokenAuthentication,
    BearerAuthentication,
    SessionAuthentication,
)


class ProblemView(APIView):
    """A view that answers errors with problem details (RFC 9457).

    `problem_statuses` are those that the OpenAPI description names beside what every view can
    answer (`registry.api.schema`).
    """

    problem_statuses: tuple[int, ...] = ()
    authentication_classes = AUTHENTICATION

    def get_exception_handler(self) -> Any:
        """Return the handler that makes problem details."""
        return handle

    def finalize_response(self, *args: Any, **kwargs: Any) -> Any:
        """Forbid caches to store the answer, unless the view allows it."""
        response = super().finalize_response(*args, **kwargs)
        response.headers.setdefault("Cache-Control", "no-store")
        return response


class PublicView(ProblemView):
    """A view that needs no account."""

    authentication_classes = ()
    permission_classes = ()


class HasPermission(BasePermission):
    """Allows users who have the view's `required_permission`."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user has the view's permission."""
        return bool(request.user and request.user.has_perm(view.required_permission))
