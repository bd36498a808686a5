"""Error responses outside the views: problem details below `/api/`, pages elsewhere."""

from __future__ import annotations

import sys
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.views import defaults

from registry.api.errors import RETRY_SECONDS, plain_problem
from registry.storage.engine_trouble import is_engine_trouble

API = "/api/"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400: Django could not read the request."""
    if _is_api(request):
        return plain_problem(HTTPStatus.BAD_REQUEST, "The request can't be read.")
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403: a view or a middleware refused the request."""
    if _is_api(request):
        return plain_problem(HTTPStatus.FORBIDDEN, "You may not do this.")
    return defaults.permission_denied(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404: there is no such URL."""
    if _is_api(request):
        return plain_problem(HTTPStatus.NOT_FOUND, "There is nothing at this address.")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 503 if the database can't be used, else 500. Django has logged the exception."""
    problem = sys.exc_info()[1]
    if problem is not None and is_engine_trouble(problem):
        return _unavailable(request)
    if _is_api(request):
        return plain_problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The hub failed. It has logged why.")
    return defaults.server_error(request)


def _unavailable(request: HttpRequest) -> HttpResponse:
    if _is_api(request):
        return plain_problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The hub's database can't be used at the moment. Try again.",
        )
    answer = defaults.server_error(request)
    answer.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    answer.headers["Retry-After"] = str(RETRY_SECONDS)
    return answer


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith(API)
