"""The trail over HTTP: lists, single entries and exports. Each reading is entered before it starts.

Officers and auditors may read. There is only GET, so no caller can write.
"""

from __future__ import annotations

import re

from django.core import signing
from django.http import Http404, StreamingHttpResponse
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import Throttled, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from atp.wire.canonical import digest
from registry.api.trail import schema
from registry.api.trail.base import PAGE_ENTRIES, TrailView, format_of, limit_of, record
from registry.api.trail.exports import stream
from registry.api.trail.feed import FeedView
from registry.api.trail.jobs import ExportFileView, ExportJobsView, ExportJobView
from registry.api.trail.places import ExportPlace, places
from registry.officers.actor import Actor
from registry.trail.actions import record_export_end
from registry.trail.kinds import Kind
from registry.trail.logs import index_of
from registry.trail.reading.columns import FIELDS
from registry.trail.reading.exporting import Progress, chunks_of
from registry.trail.reading.filters import parse_fields, parse_query, position_of
from registry.trail.reading.formats import Format, represent
from registry.trail.reading.search import Query, find, read, span_of

RETRY_SECONDS = 30
TOO_MANY = "Too many exports of this account or on this node are running. Try again later."

_cursors = signing.Signer(salt="atp.provenance.cursor")


class EntryListView(TrailView):
    """Entries of the trail that match all given filters, newest first.

    A parameter that may be repeated matches any of its values. Each list is entered in the trail
    when it begins. It shows the log as it was at that moment (`logSize` entries), so its pages
    neither repeat nor miss an entry while the log grows. `next` is the address of the next page.
    A cursor is valid only for the same filters and the same account.
    """

    @extend_schema(
        operation_id="provenance_list",
        parameters=[*schema.FILTERS, schema.ORDER, schema.FIELDS, schema.LIMIT, schema.CURSOR],
        responses={200: schema.EntryPageSerializer},
        tags=["provenance"],
    )
    def get(self, request: Request) -> Response:
        parameters = request.query_params
        query, limit = self.check_parameters(request)
        if "cursor" in parameters:
            log_size, after = _open_cursor(parameters["cursor"], query, request)
        else:
            log_size, after = record(request, Kind.TRAIL_QUERIED, "provenance", query.asked), None
        span = span_of(query.limits, log_size=log_size)
        if after is not None:
            span = span.behind(after, query.order)
        found = find(query, span, limit=limit)
        rows = read(query.fields, found.positions)
        more = found.reached is not None
        return Response(
            {
                "results": [represent(query.fields, row) for row in rows],
                "next": _next(request, query, log_size, found.reached) if more else None,
                "searchedTo": None if found.reached is None else index_of(found.reached),
                "logSize": index_of(log_size),
            }
        )

    def check_parameters(self, request: Request) -> tuple[Query, int]:
        """Return query and limit of a page."""
        parameters = request.query_params
        query = parse_query(parameters, besides=("cursor", "limit"))
        return query, limit_of(parameters.get("limit", str(PAGE_ENTRIES)))


class EntryView(TrailView):
    """One entry with its body, its leaf (the exact text that was hashed) and the leaf hash."""

    @extend_schema(
        operation_id="provenance_read",
        parameters=[schema.INDEX, schema.FIELDS],
        responses={200: schema.EntrySerializer},
        tags=["provenance"],
    )
    def get(self, request: Request, index: int) -> Response:
        fields = self.check_parameters(request)
        row = next(iter(read(fields, [position_of(index)])), None)
        if row is None:
            raise Http404
        record(request, Kind.TRAIL_QUERIED, f"entry {index}", {})
        return Response(represent(fields, row))

    def check_parameters(self, request: Request) -> tuple[str, ...]:
        """Return the members of the answer."""
        return parse_fields(request.query_params, fields=tuple(FIELDS))


class ExportView(TrailView):
    """All entries that match the filters, oldest first, as a stream.

    `ndjson` has one JSON object a line. `csv` has a header line. A cell that begins with `=`, `+`,
    `-`, `@`, tab or carriage return gets an apostrophe in front, because a spreadsheet would run
    it as a formula: remove the apostrophe before you compare. Each export is entered in the trail.
    """

    problem_statuses = (429,)

    @extend_schema(
        operation_id="provenance_export",
        parameters=[schema.FORMAT, *schema.FILTERS, schema.ORDER, schema.FIELDS],
        responses={
            (200, "application/x-ndjson"): OpenApiTypes.STR,
            (200, "text/csv"): OpenApiTypes.STR,
        },
        tags=["provenance"],
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        written_as, query = self.check_parameters(request)
        place = places.take(Actor.of_user(request.user).name)
        if place is None:
            raise Throttled(RETRY_SECONDS, TOO_MANY)
        try:
            return _answer_of_export(request, written_as, query, place)
        except BaseException:
            place.leave()  # at once, while a traceback still refers to it
            raise

    def check_parameters(self, request: Request) -> tuple[Format, Query]:
        """Return format and query of an export."""
        parameters = request.query_params
        written_as = format_of(parameters.getlist("format"))
        query = parse_query(
            parameters, besides=("format",), fields=written_as.fields, order="oldest"
        )
        return written_as, query


def _answer_of_export(
    request: Request, written_as: Format, query: Query, place: ExportPlace
) -> StreamingHttpResponse:
    actor = Actor.of_user(request.user)
    asked = {"format": written_as.name, **query.asked}
    log_size = record(request, Kind.EXPORT_CREATED, "provenance", asked)
    progress, compressed = Progress(), accepts_gzip(request.headers.get("Accept-Encoding", ""))
    chunks = chunks_of(query, written_as, progress, log_size=log_size, compressed=compressed)

    def end(ended: Progress) -> None:
        record_export_end(actor, created=index_of(log_size), rows=ended.rows, outcome=ended.outcome)

    name = f"trail-{index_of(log_size)}.{written_as.name}"
    return StreamingHttpResponse(
        stream(chunks, progress, place, end),
        content_type=written_as.content_type,
        headers={
            **({"Content-Encoding": "gzip"} if compressed else {}),
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
            "Vary": "Accept-Encoding",
            "X-Accel-Buffering": "no",  # nginx would write the whole export to its disk
        },
    )


def accepts_gzip(header: str) -> bool:
    """Return whether an `Accept-Encoding` asks for gzip by name (RFC 9110, section 12.5.3)."""
    for part in header.lower().split(","):
        coding, _, weight = part.replace(" ", "").partition(";")
        if coding == "gzip":
            return not re.fullmatch(r"q=0(\.0*)?", weight)
    return False


def _next(request: Request, query: Query, log_size: int, after: int | None) -> str:
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
    path("provenance/feed", FeedView.as_view(), name="provenance-feed"),
    path("provenance/exports/", ExportJobsView.as_view(), name="provenance-exports"),
    path("provenance/exports/<str:name>/", ExportJobView.as_view(), name="provenance-exports-one"),
    path(
        "provenance/exports/<str:name>/file",
        ExportFileView.as_view(),
        name="provenance-exports-file",
    ),
    path("provenance/export", ExportView.as_view(), name="provenance-export"),
    path("provenance/<int:index>/", EntryView.as_view(), name="provenance-entry"),
]
