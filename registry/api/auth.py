"""Who calls the API: a person logged in to the admin, or a program with a person's token."""

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
    """`Authorization: Token <token>`; the database has its hash only."""

    def authenticate_credentials(self, key: str) -> tuple[Any, Any]:
        now = datetime.now(UTC)
        token = (
            ApiToken.objects.select_related("user")
            .filter(token_hash=hash_token(key), revoked_at=None, expires_at__gt=now)
            .first()
        )
        if token is None or not token.user.is_active:
            raise exceptions.AuthenticationFailed("The token is unknown, expired or revoked.")
        return token.user, token


# The first one's challenge makes a missing login 401 instead of 403.
AUTHENTICATION: tuple[type[BaseAuthentication], ...] = (
    ApiTokenAuthentication,
    SessionAuthentication,
)


class ProblemView(APIView):
    """A view that answers problems as problem details."""

    authentication_classes = AUTHENTICATION

    def get_exception_handler(self) -> Any:
        return handle


class PublicView(ProblemView):
    """A public view: it asks for no account."""

    authentication_classes = ()
    permission_classes = ()


class HasPermission(BasePermission):
    """Lets those read who hold the view's `required_permission`."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return bool(request.user and request.user.has_perm(view.required_permission))
