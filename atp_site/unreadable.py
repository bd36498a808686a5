"""Refuse input that no view of the hub reads: NUL characters, and text that is not UTF-8.

PostgreSQL fails on a NUL in a text, and SQLite accepts it. So this middleware answers 400 before
any view, for URLs, queries, forms and cookies. API callers get problem details, people a page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponseBadRequest, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from django.views.defaults import bad_request

from atp.errors import MalformedDocument
from registry.api.errors import PROBLEM_JSON, problem_of

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")
ADMIN = "/admin/"
ADMIN_NUL = "_00"  # how the admin writes a NUL in a row's key (django.contrib.admin.utils.unquote)

# What Django raises while it reads a query or a form.
_UNREADABLE = (BadRequest, SuspiciousOperation, MultiPartParserError, LookupError, ValueError)


class Handler(ASGIHandler):
    """Django's ASGI handler, but a request whose head can't be read gets 400 and no exception."""

    def create_request(self, scope: Any, body_file: Any) -> Any:
        """Return the request, or a response with status 400."""
        try:
            return super().create_request(scope, body_file)
        except ValueError:
            return None, HttpResponseBadRequest(b"The head of the request can't be read.\n")


@sync_and_async_middleware
def refuse_unreadable(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Answer 400 to a request that can't be read, before any view and query."""
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> HttpResponseBase:
            # A form is read from its body; everything else is in memory.
            found = fault_of(request, with_form=False)
            if not found and _has_form(request):
                found = await sync_to_async(fault_of)(request, with_form=True)
            if found:
                return refusal(request, found)
            pending: Awaitable[HttpResponseBase] = get_response(request)
            return await pending

        return answer_async

    def answer(request: HttpRequest) -> HttpResponseBase:
        found = fault_of(request, with_form=_has_form(request))
        if found:
            return refusal(request, found)
        response: HttpResponseBase = get_response(request)
        return response

    return answer


def fault_of(request: HttpRequest, *, with_form: bool) -> str:
    """Return why a request can't be read, without a quotation from it; "" if it can be read."""
    charset = (request.content_params or {}).get("charset", "utf-8")
    if charset.lower() not in CHARSETS:
        return "the charset is not UTF-8"
    try:
        for part, texts in _texts(request, with_form=with_form):
            if any("\0" in text for text in texts):
                return f"there is a NUL character in the {part}"
    except _UNREADABLE:
        return "the query or the form can't be read"
    return ""


def refusal(request: HttpRequest, fault: str) -> HttpResponseBase:
    """Return a response with 400: problem details below `/api/`, a page elsewhere."""
    if request.path_info.startswith("/api/"):
        problem = problem_of(MalformedDocument(fault))
        return JsonResponse(
            problem, status=400, content_type=PROBLEM_JSON, headers={"Cache-Control": "no-store"}
        )
    return bad_request(request, BadRequest(fault))


def _texts(request: HttpRequest, *, with_form: bool) -> Iterator[tuple[str, Iterable[str]]]:
    path = request.path_info
    if path.startswith(ADMIN):
        path = path.replace(ADMIN_NUL, "\0")
    yield "address", [path]
    yield "query", _of(request.GET)
    yield "cookies", [*request.COOKIES.keys(), *request.COOKIES.values()]
    if with_form:
        yield "form", _of(request.POST)
        files = [file for _, found in request.FILES.lists() for file in found]
        yield "form", [*request.FILES.keys(), *(str(file.name) for file in files)]


def _of(parameters: Any) -> Iterator[str]:
    for name, values in parameters.lists():
        yield name
        yield from values


def _has_form(request: HttpRequest) -> bool:
    return request.method == "POST" and request.content_type in FORMS
