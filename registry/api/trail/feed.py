"""The feed of the trail: new entries for a program that follows the log, such as a SIEM."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from registry.api.trail import schema
from registry.api.trail.base import PAGE_ENTRIES, TrailView, limit_of, record
from registry.officers.actor import Actor
from registry.trail.kinds import Kind
from registry.trail.logs import index_of
from registry.trail.models import Entry
from registry.trail.reading.filters import UnreadableQuery, parse_query, position_of, read_index
from registry.trail.reading.formats import represent
from registry.trail.reading.search import Filter, Query, Span, find, read, span_of

SUBJECT = "feed"  # of the entries about readings of the feed
RECORDED = timedelta(hours=1)  # one entry of an account tells of all its readings of that time
REST_SECONDS = 5  # for a caller to wait if nothing is new
_OWN_READINGS = Filter((~Q(kind=Kind.TRAIL_QUERIED, subject=SUBJECT),))


class FeedView(TrailView):
    """Entries behind the entry `after`, oldest first, for a program that follows the log.

    `cursor` is the `after` of the next call; keep it when the entries are handled. Without `after`
    the feed begins with entry 0. If nothing is new, `results` is empty and `Retry-After` says how
    many seconds to wait. The first reading of an account in an hour is entered in the trail as
    `trail.queried` with the subject `feed`; the feed leaves out these entries, so it does not feed
    itself. Lists and exports have them.
    """

    @extend_schema(
        operation_id="provenance_feed",
        parameters=[schema.AFTER, *schema.FILTERS, schema.FIELDS, schema.LIMIT],
        responses={200: schema.FeedSerializer},
        tags=["provenance"],
    )
    def get(self, request: Request) -> Response:
        query, after, limit = self.check_parameters(request)
        _record_once(request, query, after)
        log_size = Entry.objects.size()
        span = span_of(query.limits, log_size=log_size).behind(position_of(after), "oldest")
        found = find(query, span, limit=limit)
        rows = read(query.fields, found.positions)
        read_to = log_size - 1 if found.reached is None else found.reached
        cursor = max(after, index_of(read_to))
        url = replace_query_param(request.build_absolute_uri(), "after", cursor)
        rests = not rows and found.reached is None
        return Response(
            {
                "results": [represent(query.fields, row) for row in rows],
                "cursor": cursor,
                "next": url,
                "retryAfter": REST_SECONDS if rests else None,
            },
            headers={"Retry-After": str(REST_SECONDS)} if rests else None,
        )

    def check_parameters(self, request: Request) -> tuple[Query, int, int]:
        """Return the query, the entry behind which it reads (-1 for the begin), and the limit."""
        parameters = request.query_params
        if "order" in parameters:
            raise UnreadableQuery({"order": ["the feed has the oldest entry first"]})
        query = parse_query(parameters, besides=("after", "limit"), order="oldest")
        after = read_index(parameters["after"], name="after") if "after" in parameters else -1
        query = replace(query, filters={**query.filters, "": _OWN_READINGS})
        return query, after, limit_of(parameters.get("limit", str(PAGE_ENTRIES)))


def _record_once(request: Request, query: Query, after: int) -> None:
    """Enter the reading, unless this account has an entry of the past hour."""
    actor = Actor.of_user(request.user)
    since = Entry.objects.first_since(datetime.now(UTC) - RECORDED, default=Entry.objects.size())
    recent = Span(since, Entry.objects.size())
    known = Entry.objects.within(recent.first, recent.end).filter(
        actor=actor.name, kind=Kind.TRAIL_QUERIED, subject=SUBJECT
    )
    if not known.exists():
        asked: dict[str, Any] = {"after": [str(after)], **query.asked}
        record(request, Kind.TRAIL_QUERIED, SUBJECT, asked)
