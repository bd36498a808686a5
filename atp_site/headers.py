"""Security headers of every page: scripts and connections of this hub only, no device."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "style-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


API_PAGE = "/api/docs/"
API_PAGE_POLICY = POLICY.replace(
    "style-src 'self'",
    "style-src 'self' 'unsafe-inline'",  # the page of drf-spectacular writes style attributes
)
# What no page of the hub uses (W3C, Permissions Policy).
PERMISSIONS = ", ".join(
    f"{feature}=()"
    for feature in ("camera", "display-capture", "geolocation", "microphone", "payment", "usb")
)


@sync_and_async_middleware
def security_headers(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Set the headers on every response, unless the view has set its own."""
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> HttpResponseBase:
            pending: Awaitable[HttpResponseBase] = get_response(request)
            return _with_headers(request, await pending)

        return answer_async

    def answer(request: HttpRequest) -> HttpResponseBase:
        return _with_headers(request, get_response(request))

    return answer


def _with_headers(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    policy = API_PAGE_POLICY if request.path == API_PAGE else POLICY
    response.headers.setdefault("Content-Security-Policy", policy)
    response.headers.setdefault("Permissions-Policy", PERMISSIONS)
    return response
