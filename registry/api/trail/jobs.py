"""Exports of any size over HTTP: made, watched, fetched in parts, cancelled.

Each account sees its own exports only.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.response import Response

from registry.api.trail import schema
from registry.api.trail.base import TrailView, format_of
from registry.exports.actions import KEPT, TooManyExports, cancel, create_export
from registry.exports.files import path_of
from registry.exports.models import TrailExport
from registry.officers.actor import Actor
from registry.trail.logs import index_of
from registry.trail.reading.formats import FORMATS

RETRY_SECONDS = 60
PART_BYTES = 1 << 18  # read at once
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")  # one range: RFC 9110, section 14.1.2
_NAME = OpenApiParameter("name", str, OpenApiParameter.PATH, description="The export's name.")


class ExportJobsView(TrailView):
    """The exports of the caller's account that a worker writes to files.

    POST makes one, with format, filters, `order` and `fields` in the query string, as for
    `/provenance/export`. It is entered in the trail when it is made and when it ends. Its file is
    kept for a day.
    """

    http_method_names = ["get", "head", "options", "post"]
    problem_statuses = (429,)

    @extend_schema(
        operation_id="provenance_exports_list",
        responses={200: schema.ExportJobSerializer(many=True)},
        tags=["provenance"],
    )
    def get(self, request: Request) -> Response:
        """Return the exports of this account, the newest first."""
        own = TrailExport.objects.filter(made_by_id=request.user.pk)
        return Response([_shown(request, export) for export in own])

    @extend_schema(
        operation_id="provenance_exports_create",
        request=None,
        parameters=[schema.FORMAT, *schema.FILTERS, schema.ORDER, schema.FIELDS],
        responses={202: schema.ExportJobSerializer},
        tags=["provenance"],
    )
    def post(self, request: Request) -> Response:
        """Make an export; answer with its address."""
        asked = request.query_params.copy()
        written_as = format_of(asked.getlist("format"))
        del asked["format"]
        try:
            export = create_export(written_as.name, asked, actor=Actor.of_user(request.user))
        except TooManyExports as exc:
            raise Throttled(RETRY_SECONDS, str(exc)) from exc
        shown = _shown(request, export)
        return Response(shown, status=202, headers={"Location": shown["url"]})

    def check_parameters(self, request: Request) -> None:
        """Accept everything: a list has no parameters."""


class ExportJobView(TrailView):
    """One export: how far it is, and where its file is when it is complete."""

    http_method_names = ["get", "head", "options", "delete"]

    @extend_schema(
        operation_id="provenance_exports_read",
        parameters=[_NAME],
        responses={200: schema.ExportJobSerializer},
        tags=["provenance"],
    )
    def get(self, request: Request, name: str) -> Response:
        """Return the progress of an export."""
        return Response(_shown(request, _own(request, name)))

    @extend_schema(
        operation_id="provenance_exports_delete",
        parameters=[_NAME],
        responses={204: None},
        tags=["provenance"],
    )
    def delete(self, request: Request, name: str) -> Response:
        """Cancel an export that has not ended; delete its file."""
        cancel(_own(request, name))
        return Response(status=204)

    def check_parameters(self, request: Request) -> None:
        """Accept everything: an export has no parameters."""


class ExportFileView(TrailView):
    """The file of a complete export. `Range` with one range of bytes fetches a part of it."""

    http_method_names = ["get", "head", "options"]
    problem_statuses = (416,)

    @extend_schema(
        operation_id="provenance_exports_file",
        parameters=[_NAME],
        responses={
            (200, "application/x-ndjson"): OpenApiTypes.STR,
            (200, "text/csv"): OpenApiTypes.STR,
        },
        tags=["provenance"],
    )
    def get(self, request: Request, name: str) -> HttpResponse | StreamingHttpResponse:
        """Stream the file or a part of it."""
        export = _own(request, name)
        path = path_of(export.name)
        if export.outcome != TrailExport.Outcome.COMPLETE or not path.exists():
            raise Http404
        part = _part(request, export)
        headers = _headers(export, part)
        if part is not None and part.start >= export.size:
            return HttpResponse(status=416, headers=headers)
        whole = part or range(export.size)
        headers["Content-Length"] = str(len(whole))
        status = 200 if part is None else 206
        return StreamingHttpResponse(_bytes(path, whole), status=status, headers=headers)

    def head(self, request: Request, **named: Any) -> HttpResponse:
        """Answer as `get` does, without the bytes."""
        answer = self.get(request, **named)
        return HttpResponse(status=answer.status_code, headers=dict(answer.headers))


def _own(request: Request, name: str) -> TrailExport:
    """Return an export of the caller's account; raise `Http404` if it has none of this name."""
    export = TrailExport.objects.filter(pk=name, made_by_id=request.user.pk).first()
    if export is None:
        raise Http404
    return export


def _shown(request: Request, export: TrailExport) -> dict[str, Any]:
    url = request.build_absolute_uri(reverse("provenance-exports-one", args=[export.name]))
    complete = export.outcome == TrailExport.Outcome.COMPLETE
    expires = export.ended_at and export.ended_at + KEPT
    return {
        "name": export.name,
        "url": url,
        "state": export.outcome or ("running" if export.size else "waiting"),
        "reason": export.reason,
        "percent": export.percent,
        "rows": export.rows,
        "bytes": export.size,
        "logSize": index_of(export.log_size),
        "file": f"{url}file" if complete else None,
        "expiresAt": expires.isoformat() if expires else None,
    }


def _part(request: Request, export: TrailExport) -> range | None:
    """Return the bytes that are asked for; `None` for all: no range, or one that is not ours."""
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    same = request.headers.get("If-Range", _tag(export)) == _tag(export)
    if found is None or not same or found.group(0) == "bytes=-":
        return None
    begin, end = found.groups()
    if not begin:
        return range(max(0, export.size - int(end)) if int(end) else export.size, export.size)
    last = min(int(end), export.size - 1) if end else export.size - 1
    return range(int(begin), last + 1) if not end or int(end) >= int(begin) else None


def _headers(export: TrailExport, part: range | None) -> dict[str, str]:
    written_as = FORMATS[export.written_as]
    name = f"trail-{index_of(export.log_size)}.{written_as.name}"
    headers = {
        "Content-Type": written_as.content_type,
        "Content-Disposition": f'attachment; filename="{name}"',
        "Accept-Ranges": "bytes",
        "ETag": _tag(export),
        "X-Accel-Buffering": "no",
    }
    if part is not None:
        shown = f"{part.start}-{part.stop - 1}" if part.start < export.size else "*"
        headers["Content-Range"] = f"bytes {shown}/{export.size}"
    return headers


def _tag(export: TrailExport) -> str:
    return f'"{export.name}"'


async def _bytes(path: Path, part: range) -> AsyncGenerator[bytes, None]:
    """Yield these bytes of a file, read when the ones before were sent."""
    file = await sync_to_async(lambda: path.open("rb"))()
    try:
        await sync_to_async(file.seek)(part.start)
        left = len(part)
        while left and (found := await sync_to_async(file.read)(min(left, PART_BYTES))):
            left -= len(found)
            yield found
    finally:
        with suppress(OSError):
            file.close()
