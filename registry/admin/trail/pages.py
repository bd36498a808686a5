"""The admin pages of the trail, read only: the list of entries and the page of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from atp.log import leaves
from atp.wire.canonical import b64url
from atp.wire.timestamps import format_microseconds
from atp.wire.words import SENSITIVITIES
from registry.admin.closed_lists import ClosedList
from registry.admin.lists import MOST_COUNTED, BoundedPaginator, DottedWordsFilter, WordsFilter
from registry.admin.trail.fit import erased, misfits
from registry.hub.secrets import blinded
from registry.officers.actor import may_see_names, officer_names
from registry.trail.kinds import VERDICTS, Kind
from registry.trail.models import Entry

BLINDED = ("request_id", "on_behalf_of")  # in the header; the body has the text
MOST_RELATED = 100  # entries of a timeline
MOST_DIGITS = 18  # of an entry's number, so that it fits the column
LONGEST_BODY = 50_000  # characters of a body on its page
LONGEST_REASON = 160  # characters of a reason in the list
SEARCHED = ("message_id", "request_id", "sender", "recipient", "subject", "actor")
_SECTIONS = tuple(f"body__{name}" for name in ("digests", *leaves.SECTIONS))
_HEAVY = ("leaf", "leaf_hash", *_SECTIONS)  # not read for lists
PERIODS = {
    "hour": ("Past hour", timedelta(hours=1)),
    "day": ("Past 24 hours", timedelta(days=1)),
    "week": ("Past 7 days", timedelta(days=7)),
    "month": ("Past 30 days", timedelta(days=30)),
}
# The label of each member of the header.
LABELS = {
    "v": "Format", "log": "Log", "index": "Entry", "time": "Time", "hub": "Hub", "kind": "Kind",
    "actor": "Who", "subject": "What", "cause": "Caused by entry", "sender": "Sender",
    "recipient": "Recipient", "messageId": "Message", "session": "Session",
    "sensitivity": "Sensitivity", "verdict": "Verdict", "policy": "Policy", "rule": "Rule",
    "issuer": "Issuer", "attestation": "Attestation", "score": "Score", "trace": "Trace",
    "requestId": "Request", "onBehalfOf": "On behalf of",
    "senderOrganisation": "Sender's organisation",
    "recipientOrganisation": "Recipient's organisation", "organisations": "Organisations",
}  # fmt: skip


class _KindFilter(DottedWordsFilter):
    title = "what happened"
    parameter_name = "kind"
    words = tuple(kind.value for kind in Kind)


class _VerdictFilter(WordsFilter):
    title = parameter_name = "verdict"
    words = VERDICTS


class _SensitivityFilter(WordsFilter):
    title = parameter_name = "sensitivity"
    words = SENSITIVITIES


class _PeriodFilter(admin.SimpleListFilter):
    title = "time"
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, label) for name, (label, _) in PERIODS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Entry]) -> QuerySet[Entry]:
        begin = _begin_of(self.value())
        return queryset if begin is None else queryset.filter(time__gte=begin)


@admin.register(Entry)
class EntryAdmin(ClosedList[Entry]):
    """The list of entries and the page of each; it changes nothing."""

    list_display = ("place", "when", "kind", "who", "what", "verdict_badge", "why")
    list_display_links = ("place",)
    list_filter = (_PeriodFilter, _KindFilter, _VerdictFilter, _SensitivityFilter)
    list_per_page = 50
    search_fields = tuple(f"={name}" for name in SEARCHED)
    search_help_text = "A message id, a request id, an agent or an entry's number, in full."
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they count the whole table
    sortable_by = ()
    ordering = ("-position",)
    paginator = BoundedPaginator
    actions = None
    change_list_template = "admin/registry/entry/change_list.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return `False`: only the hub appends entries."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return `False`: an entry never changes."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return `False`: an entry is never deleted."""
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Entry]:
        """Return entries with their bodies, without the large columns."""
        rows = super().get_queryset(request).select_related("body")
        return rows.defer(*_HEAVY)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Entry], search_term: str
    ) -> tuple[QuerySet[Entry], bool]:
        """Return the entries with this index, or with this text in a searched column."""
        term = search_term.strip()
        if not term:
            return queryset, False
        found = Q(position=int(term)) if _is_number(term) else Q()
        for name in SEARCHED:
            found |= Q(**{name: blinded("requestId", term) if name == "request_id" else term})
        return queryset.filter(found), False

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Read the names of people once for the whole page."""
        changelist = super().get_changelist_instance(request)
        names = _names_for(request)
        rows: list[Any] = list(changelist.result_list)
        for row in rows:
            row.names = names
        changelist.result_list = rows
        return changelist

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list, with links to exports of what is filtered."""
        context = {
            "title": "Entries of the trail",
            "exports": _exports(request.GET),
            "most": MOST_COUNTED,
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show one entry, with links to its neighbours and to entries of the same message."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        entry = _entry(object_id)
        matter = Entry.objects.about_the_same_as(entry).select_related("body")
        related = list(matter.defer(*_HEAVY)[: MOST_RELATED + 1])
        names = _names_for(request)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "list_url": reverse("admin:registry_entry_changelist"),
            "title": f"Entry {entry.index}: {entry.kind}",
            "entry": entry,
            "header": _header(entry, names),
            "sections": _readable_sections(entry),
            "erased": erased(entry.body),
            "why": _why(entry),
            "leaf": bytes(entry.leaf).decode("utf-8", "replace"),
            "leaf_hash": b64url(bytes(entry.leaf_hash)),
            "misfits": misfits(entry),
            "previous": entry.position - 1 if entry.position else None,
            "next": entry.position + 1 if _exists(entry.position + 1) else None,
            "timeline": [_line(row, entry, names) for row in related[:MOST_RELATED]],
            "more": len(related) > MOST_RELATED,
        }
        return TemplateResponse(request, "admin/registry/entry/read.html", context)

    @admin.display(description="entry")
    def place(self, row: Entry) -> int:
        """Return the entry's number."""
        return row.index

    @admin.display(description="time")
    def when(self, row: Entry) -> str:
        """Return the entry's time in UTC."""
        return _moment(row.time)

    @admin.display(description="who")
    def who(self, row: Entry) -> str:
        """Return the actor, a person by pseudonym, with the name for those who may see it."""
        return _named(row.actor, getattr(row, "names", {}))

    @admin.display(description="what")
    def what(self, row: Entry) -> str:
        """Return sender and recipient of an envelope, or else the subject."""
        return _named(_what(row), getattr(row, "names", {}))

    @admin.display(description="verdict")
    def verdict_badge(self, row: Entry) -> SafeString | str:
        """Return the verdict as a badge; '' for entries without one."""
        return _badge(row)

    @admin.display(description="why")
    def why(self, row: Entry) -> str:
        """Return the reason, or the rule that decided, cut to `LONGEST_REASON` characters."""
        reason = _why(row)
        return reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}\u2026"


def _entry(object_id: str) -> Entry:
    """Return the entry with this number; raise `Http404` if there is none."""
    known = _is_number(object_id)
    entry = Entry.objects.select_related("body").filter(pk=object_id).first() if known else None
    if entry is None:
        raise Http404
    return entry


def _exists(position: int) -> bool:
    return Entry.objects.filter(position=position).exists()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS


def _names_for(request: HttpRequest) -> Mapping[str, str]:
    """Return names by pseudonym; none for users who may not see them."""
    return officer_names() if may_see_names(request.user) else {}


def _named(text: str, names: Mapping[str, str]) -> str:
    """Return a pseudonym with its name behind it; any other text as it is."""
    return f"{text} ({names[text]})" if text in names else text


def _line(row: Entry, current: Entry, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "position": row.position,
        "index": row.index,
        "current": row.position == current.position,
        "when": _moment(row.time),
        "kind": row.kind,
        "who": _named(row.actor, names),
        "what": _named(_what(row), names),
        "badge": _badge(row),
        "why": _why(row),
    }


def _header(entry: Entry, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (label, value) of the members that are not empty; names follow their pseudonyms."""
    shown, plain = [], entry.body.read()
    for name, member in leaves.HEADER.items():
        value = getattr(entry, name)
        if name in BLINDED:
            value = plain.get(member, value)
        if not value and value != 0:
            continue
        text = _moment(value, precisely=True) if name == "time" else _text(value)
        shown.append((LABELS[member], _named(text, names)))
    return shown


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _readable_sections(entry: Entry) -> list[tuple[str, str]]:
    """Return name and text of each section that was not erased."""
    found = ((name, getattr(entry.body, name)) for name in leaves.SECTIONS)
    return [(name, _readable(bytes(content))) for name, content in found if content is not None]


def _readable(content: bytes) -> str:
    text = json.dumps(json.loads(content), indent=2, ensure_ascii=False)
    cut = text[:LONGEST_BODY]
    return cut if cut == text else f"{cut}\n\u2026 {len(text) - len(cut)} more characters"


def _why(row: Entry) -> str:
    """Return the reason in the body, or else the rule that decided."""
    reason = row.body.reason
    return ("(erased)" if reason is None else reason) or row.rule


def _what(row: Entry) -> str:
    if row.sender and row.recipient:
        return f"{row.sender} \u2192 {row.recipient}"
    return row.subject or row.recipient or row.sender


def _badge(row: Entry) -> SafeString | str:
    if not row.verdict:
        return ""
    return format_html('<span class="verdict verdict-{0}">{0}</span>', row.verdict)


def _moment(time: datetime, *, precisely: bool = False) -> str:
    text = f"{time:%Y-%m-%d %H:%M:%S.%f}" if precisely else f"{time:%Y-%m-%d %H:%M:%S}"
    return f"{text} UTC"


def _begin_of(period: str | None) -> datetime | None:
    return datetime.now(UTC) - PERIODS[period][1] if period in PERIODS else None


def _exports(asked: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return links that export the listed entries; none for a search: no filter expresses it."""
    if asked.get("q"):
        return []
    filters = {name: asked[name] for name in ("kind", "verdict", "sensitivity") if name in asked}
    begin = _begin_of(asked.get("period"))
    if begin is not None:
        filters["timeFrom"] = format_microseconds(begin)
    url = reverse("provenance-export")
    return [
        (label, f"{url}?{urlencode({'format': name, **filters})}")
        for name, label in (("csv", "Export as CSV"), ("ndjson", "Export as NDJSON"))
    ]
