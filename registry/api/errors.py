"""Errors over HTTP: problem details (RFC 9457), and the HTTP status of each error code."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from atp.errors import ATPError
from registry.storage.engine_trouble import is_engine_trouble

PROBLEM_JSON = "application/problem+json"  # RFC 9457, section 3
RETRY_SECONDS = 5  # for callers that find the database away
TYPE_PREFIX = "urn:atp:error:"  # a URN names the type; there is no page to fetch

_CODE_OF_STATUS = {  # as the framework names them
    HTTPStatus.BAD_REQUEST: "http.parse_error",
    HTTPStatus.FORBIDDEN: "http.permission_denied",
    HTTPStatus.NOT_FOUND: "http.not_found",
    HTTPStatus.INTERNAL_SERVER_ERROR: "http.error",
    HTTPStatus.SERVICE_UNAVAILABLE: "http.unavailable",
}

logger = logging.getLogger(__name__)

_OF_FAMILY: Mapping[str, HTTPStatus] = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "identity": HTTPStatus.FORBIDDEN,
    "key": HTTPStatus.BAD_REQUEST,
    "signature": HTTPStatus.FORBIDDEN,
    "replay": HTTPStatus.CONFLICT,
    "clock": HTTPStatus.FORBIDDEN,
    "attestation": HTTPStatus.FORBIDDEN,
    "recipient": HTTPStatus.NOT_FOUND,
    "trust": HTTPStatus.FORBIDDEN,
    "policy": HTTPStatus.FORBIDDEN,
    "flow": HTTPStatus.SERVICE_UNAVAILABLE,
    "session": HTTPStatus.CONFLICT,
    "handler": HTTPStatus.BAD_GATEWAY,
    "outbox": HTTPStatus.CONFLICT,
}
_OF_CODE: Mapping[str, HTTPStatus] = {
    "malformed.too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "identity.unknown": HTTPStatus.NOT_FOUND,
    "identity.invalid_id": HTTPStatus.BAD_REQUEST,
    "key.unknown": HTTPStatus.NOT_FOUND,
    "key.revoked": HTTPStatus.CONFLICT,
    "key.in_use": HTTPStatus.CONFLICT,
    "recipient.no_handler": HTTPStatus.CONFLICT,
    "recipient.no_request": HTTPStatus.CONFLICT,
    "recipient.self": HTTPStatus.BAD_REQUEST,
    "policy.throttled": HTTPStatus.TOO_MANY_REQUESTS,
    "flow.throttled": HTTPStatus.TOO_MANY_REQUESTS,
    "flow.window": HTTPStatus.TOO_MANY_REQUESTS,
    "flow.timeout": HTTPStatus.GATEWAY_TIMEOUT,
    "session.authentication": HTTPStatus.UNAUTHORIZED,
    "session.timeout": HTTPStatus.REQUEST_TIMEOUT,
}


class _Unavailable(exceptions.APIException):
    """The database is away, or has no connection left."""

    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    default_detail = "The hub's database can't be used at the moment. Try again."
    default_code = "unavailable"
    wait = RETRY_SECONDS


def status_of(code: str) -> HTTPStatus:
    """Return the HTTP status of an error code, or 500 if the table does not hold the code."""
    family = code.partition(".")[0]
    return _OF_CODE.get(code) or _OF_FAMILY.get(family, HTTPStatus.INTERNAL_SERVER_ERROR)


def problem_of(error: ATPError) -> dict[str, Any]:
    """Return the problem details of a protocol error. Programs must compare only `code`."""
    status = status_of(error.code)
    body: dict[str, Any] = {
        "type": f"{TYPE_PREFIX}{error.code}",
        "title": _title(error),
        "status": status.value,
        "detail": error.detail,
        "code": error.code,
    }
    if error.retry_after is not None:
        body["retryAfter"] = error.retry_after
    return body


def handle(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """Return the response to an exception of a view; `None` for one that Django answers with 500.

    The transaction is rolled back.
    """
    if isinstance(exc, ATPError):
        set_rollback()
        return _answer(problem_of(exc), _retry_header(exc.retry_after))
    if is_engine_trouble(exc):
        logger.error("the database could not be used: %s", type(exc).__name__)
        exc = _Unavailable()
    elif isinstance(exc, Http404):
        exc = exceptions.NotFound()
    elif isinstance(exc, PermissionDenied):
        exc = exceptions.PermissionDenied()
    if not isinstance(exc, exceptions.APIException):
        return None
    set_rollback()
    return _answer(_problem_of_framework(exc), _headers(exc))


def plain_problem(status: HTTPStatus, detail: str) -> JsonResponse:
    """Return problem details for a request that no view of the API has answered."""
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": _CODE_OF_STATUS[status],
    }
    headers = _retry_header(RETRY_SECONDS) if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return JsonResponse(
        body,
        status=status,
        content_type=PROBLEM_JSON,
        headers={"Cache-Control": "no-store", **headers},
    )


def _title(error: ATPError) -> str:
    """Return the first sentence of the docstring of the error's class."""
    return (type(error).__doc__ or "").strip().splitlines()[0].rstrip(".")


def _problem_of_framework(exc: exceptions.APIException) -> dict[str, Any]:
    status = HTTPStatus(exc.status_code)
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": str(exc.detail),
        "code": f"http.{exc.get_codes()}",
    }
    if isinstance(exc, exceptions.ValidationError):
        errors = exc.detail
        body |= {"detail": "The request has invalid values.", "code": "http.invalid"}
        body["errors"] = errors if isinstance(errors, dict) else {"": errors}
    return body


def _headers(exc: exceptions.APIException) -> dict[str, str]:
    headers = _retry_header(getattr(exc, "wait", None))
    challenge = getattr(exc, "auth_header", None)
    return {**headers, "WWW-Authenticate": challenge} if challenge else headers


def _retry_header(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(max(1, round(seconds)))}


def _answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(body, status=body["status"], headers=headers, content_type=PROBLEM_JSON)
