"""The trail over HTTP: lists, single entries and exports. Each reading is entered before it starts.

Officers and auditors may read. There is only GET, so no caller can write.
"""

from __future__ import annotations

from typing import Any

from django.core import signing
from django.http import Http404, StreamingHttpResponse
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import Throttled, ValidationError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from atp.wire.canonical import digest
from registry.api.auth import HasPermission, ProblemView
from registry.api.trail import exports, schema
from registry.api.trail.exports import FORMATS, Format, read_entry, read_page, represent, stream
from registry.api.trail.filters import FIELDS, Query, parse_fields, parse_query
from registry.officers.actor import Actor
from registry.officers.scope import scope_of
from registry.trail.actions import record_reading
from registry.trail.asked import asked_record
from registry.trail.kinds import Kind

PAGE_ENTRIES = 100  # if the request has no `limit`
MOST_PAGE_ENTRIES = 1000
RETRY_SECONDS = 30

_cursors = signing.Signer(salt="atp.provenance.cursor")


class _FormatIsOurs(DefaultContentNegotiation):
    """Leaves the parameter `format` to the views: the framework answers an unknown one with 404."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[Any, str]:
        return renderers[0], renderers[0].media_type


class _TrailView(ProblemView):
    required_permission = "registry.view_entry"
    permission_classes = (IsAuthenticated, HasPermission)
    http_method_names = ["get", "head", "options"]
    content_negotiation_class = _FormatIsOurs


class EntryListView(_TrailView):
    """Entries of the trail that match all given filters, newest first.

    A parameter that may be repeated matches any of its values. Each list is entered in the trail
    when it begins. It shows the log as it was at that moment (`logSize` entries), so its pages
    neither repeat nor miss an entry while the log grows. `next` is the address of the next page.
    A cursor is valid only for the same filters and the same account.
    """

    @extend_schema(
        operation_id="provenance_list",
        parameters=[*schema.FILTERS, schema.ORDER, schema.FIELDS, schema.LIMIT, schema.CURSOR],
        responses={200: schema.EntryPageSerializer, **schema.PROBLEMS},
        tags=["provenance"],
    )
    def get(self, request: Request) -> Response:
        parameters = request.query_params
        query = parse_query(parameters, scope=scope_of(request.user), besides=("cursor", "limit"))
        limit = _limit(parameters.get("limit", str(PAGE_ENTRIES)))
        if "cursor" in parameters:
            log_size, after = _open_cursor(parameters["cursor"], query, request)
        else:
            log_size, after = _record(request, Kind.TRAIL_QUERIED, "provenance", query.asked), None
        rows = read_page(query, log_size=log_size, after=after, limit=limit + 1)
        more = rows[limit - 1][0] if len(rows) > limit else None
        return Response(
            {
                "results": [represent(query.fields, row) for row in rows[:limit]],
                "next": more and _next(request, query, log_size, more),
                "logSize": log_size,
            }
        )


class EntryView(_TrailView):
    """One entry with its body, its leaf (the exact text that was hashed) and the leaf hash."""

    @extend_schema(
        operation_id="provenance_read",
        parameters=[schema.INDEX, schema.FIELDS],
        responses={200: schema.EntrySerializer, **schema.PROBLEMS, 404: schema.NOT_FOUND},
        tags=["provenance"],
    )
    def get(self, request: Request, index: int) -> Response:
        fields = parse_fields(request.query_params, fields=tuple(FIELDS))
        row = read_entry(index, fields, scope_of(request.user))
        if row is None:
            raise Http404
        _record(request, Kind.TRAIL_QUERIED, f"entry {index}", {})
        return Response(represent(fields, row))


class ExportView(_TrailView):
    """All entries that match the filters, oldest first, as a stream.

    `ndjson` has one JSON object a line. `csv` has a header line. A cell that begins with `=`, `+`,
    `-`, `@`, tab or carriage return gets an apostrophe in front, because a spreadsheet would run
    it as a formula: remove the apostrophe before you compare. Each export is entered in the trail.
    """

    @extend_schema(
        operation_id="provenance_export",
        parameters=[schema.FORMAT, *schema.FILTERS, schema.ORDER, schema.FIELDS],
        responses={
            (200, "application/x-ndjson"): OpenApiTypes.STR,
            (200, "text/csv"): OpenApiTypes.STR,
            **schema.PROBLEMS,
            429: schema.TOO_MANY_EXPORTS,
        },
        tags=["provenance"],
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        parameters = request.query_params
        written_as = _format(parameters.getlist("format"))
        query = parse_query(
            parameters,
            scope=scope_of(request.user),
            besides=("format",),
            fields=written_as.fields,
            order="oldest",
        )
        slot = exports.running.take()
        if slot is None:
            raise Throttled(RETRY_SECONDS, "Too many exports run on this node. Try again later.")
        asked = {"format": written_as.name, **query.asked}
        log_size = _record(request, Kind.EXPORT_CREATED, "provenance", asked)
        return StreamingHttpResponse(
            exports.held(slot, stream(query, written_as, log_size=log_size)),
            content_type=written_as.content_type,
            headers={
                "Content-Disposition": f'attachment; filename="trail-{log_size}.{written_as.name}"',
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # nginx would write the whole export to its disk
            },
        )


def _record(request: Request, kind: Kind, subject: str, asked: Any) -> int:
    actor = Actor.of_user(request.user)
    return record_reading(kind, actor, subject=subject, asked={"asked": asked_record(asked)})


def _format(names: list[str]) -> Format:
    if len(names) != 1 or names[0] not in FORMATS:
        raise ValidationError({"format": [f"must be one of {', '.join(FORMATS)}"]})
    return FORMATS[names[0]]


def _limit(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 4:
        limit = int(text)
        if 1 <= limit <= MOST_PAGE_ENTRIES:
            return limit
    raise ValidationError({"limit": [f"must be a whole number from 1 to {MOST_PAGE_ENTRIES}"]})


def _next(request: Request, query: Query, log_size: int, after: int) -> str:
    held = [log_size, after, _bound_to(query, request)]
    url = request.build_absolute_uri()
    return str(replace_query_param(url, "cursor", _cursors.sign_object(held, compress=False)))


def _open_cursor(text: str, query: Query, request: Request) -> tuple[int, int]:
    """Return (log size, index of the last entry read) from a cursor.

    The cursor is signed and bound to filters and account. Without that, a caller could read
    entries that no entry of the trail names as read.
    """
    try:
        log_size, after, bound_to = _cursors.unsign_object(text)
    except (signing.BadSignature, ValueError) as exc:
        raise ValidationError({"cursor": ["is not a cursor of this hub"]}) from exc
    if bound_to != _bound_to(query, request):
        raise ValidationError({"cursor": ["belongs to other filters or to another account"]})
    return log_size, after


def _bound_to(query: Query, request: Request) -> str:
    return digest([Actor.of_user(request.user).name, dict(query.asked)])


urlpatterns = [
    path("provenance/", EntryListView.as_view(), name="provenance"),
    path("provenance/export", ExportView.as_view(), name="provenance-export"),
    path("provenance/<int:index>/", EntryView.as_view(), name="provenance-entry"),
]
