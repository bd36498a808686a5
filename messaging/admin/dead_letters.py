"""The admin pages of dead letters: the list, the page of each, and the form that redelivers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from atp.errors import BY_CODE
from atp.types import MessageType
from messaging.mail.dead_letters import dead_letters, obstacles, open_at
from messaging.models import DeadLetter, Delivery, Envelope
from registry import hooks
from registry.admin.bulk import BulkAdmin
from registry.admin.fields import reason_field
from registry.admin.lists import WordsFilter, badge
from registry.admin.pages import GrowingList, Question, posted
from registry.trail.kinds import Kind
from registry.trail.models import Entry

ROWS_A_TIME = 500  # read at once to say what can be redelivered
RECIPIENTS_NAMED = 10
ENTRIES_SHOWN = 50
CODES = ("handler.failed", "recipient.no_handler")  # those that the SDK gives by itself
OTHER_CODES = "other"


class StateFilter(admin.SimpleListFilter):
    """Filters dead letters by what officers can still do about them."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices of the filter: the value in the URL, and the words."""
        return [
            ("open", "can be redelivered"),
            ("expired", "expired"),
            ("redelivered", "redelivered"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that the chosen value selects."""
        now = datetime.now(UTC)
        match self.value():
            case "open":
                return open_at(queryset, now)
            case "expired":
                return queryset.filter(state=Delivery.State.REFUSED, expires_at__lte=now)
            case "redelivered":
                return queryset.filter(state=Delivery.State.REDELIVERED)
        return queryset


class TypeFilter(WordsFilter):
    """Filters dead letters by the type of their message."""

    title = "type"
    parameter_name = "envelope__message_type"
    words = tuple(kind.value for kind in MessageType)


class RefusalFilter(admin.SimpleListFilter):
    """Filters dead letters by the code of the refusal; recipients choose the other codes."""

    title = parameter_name = "code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((code, code) for code in CODES), (OTHER_CODES, "other codes")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == OTHER_CODES:
            return queryset.exclude(code__in=CODES)
        return queryset.filter(code=self.value()) if self.value() else queryset


class RedeliverForm(forms.Form):
    """The form that redelivers dead letters, with a reason."""

    reason = reason_field(help_text="Kept in the trail.")


@admin.register(DeadLetter)
class DeadLetterAdmin(GrowingList[DeadLetter], BulkAdmin[DeadLetter]):
    """The list of dead letters, the page of each, and the form that redelivers them."""

    when_empty = (
        "There are none: no agent has refused a message for good. A message becomes a dead letter"
        " if its recipient has no handler for it, or if its handler fails again and again."
    )
    list_display = (
        "number",
        "when",
        "recipient_link",
        "sender",
        "type",
        "code",
        "failures",
        "state_now",
    )
    list_display_links = ("number", "when")
    list_filter = (StateFilter, TypeFilter, RefusalFilter)
    list_select_related = ("envelope",)
    search_fields = ("=recipient__id", "=sender", "=envelope__message_id")
    search_help_text = "A message id or an agent id, in full."
    actions = ("redeliver_selected",)

    def get_urls(self) -> list[URLPattern]:
        return [self.decision_url("redeliver/", self.redeliver_view), *super().get_urls()]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may redeliver dead letters."""
        return request.user.has_perm("messaging.change_deadletter")

    def has_redeliver_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may redeliver dead letters."""
        return self.has_change_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        """Return all dead letters, without their content."""
        return dead_letters()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter], search_term: str
    ) -> tuple[QuerySet[DeadLetter], bool]:
        """Search by the whole text, through indexes."""
        super().get_search_results(request, queryset, search_term)  # refuses what is too long
        text = search_term.strip()
        if not text:
            return queryset, False
        named = Envelope.objects.filter(message_id=text).values("pk")
        return queryset.filter(Q(recipient_id=text) | Q(sender=text) | Q(envelope__in=named)), False

    @admin.display(description="number", ordering="pk")
    def number(self, row: DeadLetter) -> int:
        """Return the number by which a decision about many names it."""
        return row.pk

    @admin.display(description="refused (UTC)", ordering="refused_at")
    def when(self, row: DeadLetter) -> str:
        """Return when the recipient refused it."""
        return _moment(row.refused_at)

    @admin.display(description="recipient", ordering="recipient_id")
    def recipient_link(self, row: DeadLetter) -> SafeString:
        """Return a link to the recipient's page."""
        url = reverse("admin:registry_agent_change", args=[row.recipient_id])
        return format_html('<a href="{}">{}</a>', url, row.recipient_id)

    @admin.display(description="type")
    def type(self, row: DeadLetter) -> str:
        """Return the type of the message."""
        return row.envelope.message_type

    @admin.display(description="state")
    def state_now(self, row: DeadLetter) -> SafeString:
        """Return whether it was redelivered or has expired, or until when it can be redelivered."""
        if row.state == Delivery.State.REDELIVERED:
            return badge("redelivered")
        if row.expires_at <= datetime.now(UTC):
            return badge("expired")
        return format_html("{} until {}", badge("open"), _moment(row.expires_at))

    @admin.action(description="Redeliver, with a reason", permissions=["redeliver"])
    def redeliver_selected(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter]
    ) -> HttpResponse:
        return self.for_many(request, queryset, "redeliver", "delivery.redeliver")

    def redeliver_view(self, request: HttpRequest) -> HttpResponse:
        """Redeliver one or several dead letters with one reason."""
        question = Question(
            title="Redeliver dead letters",
            text="Each message comes again, at the end of its recipient's stream, and its handler"
            " runs once more. First mend what made the recipient refuse it. The hub does not judge"
            " it again. A dead letter can be redelivered once, before it expires.",
            button="Redeliver",
            back=self.url("changelist"),
        )
        form = RedeliverForm(posted(request))
        return self.decide_many(request, "delivery.redeliver", form, question, _in_words)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show one dead letter: what was refused, why, and what can be done."""
        row = self.get_row(request, object_id)
        entries = Entry.objects.filter(message_id=row.envelope.message_id, sender=row.sender)
        about = entries.filter(
            recipient=row.recipient_id,
            kind__in=(Kind.DELIVERY_REFUSED, Kind.DELIVERY_REDELIVERED),
        )
        known = BY_CODE.get(row.code)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "list_url": self.url("changelist"),
            "title": str(row),
            "row": row,
            "meaning": known.__doc__ if known else "",
            "state": self.state_now(row),
            "obstacle": obstacles([row], datetime.now(UTC)).get(row.pk, ""),
            "online": row.recipient_id in hooks.online_agents([row.recipient_id]),
            "entries": about.select_related("body").order_by("position")[:ENTRIES_SHOWN],
            "may_redeliver": self.has_change_permission(request, row),
        }
        return TemplateResponse(request, "admin/messaging/deadletter/page.html", context)


def _in_words(ids: Sequence[Any]) -> Sequence[tuple[str, str]]:
    """Return how many of these come again now, why the others do not, and to whom they come."""
    why: Counter[str] = Counter()
    coming: Counter[str] = Counter()
    now = datetime.now(UTC)
    for rows in _in_parts(ids):
        found = obstacles(rows, now)
        why.update(str(obstacle) for obstacle in found.values())
        coming.update(row.recipient_id for row in rows if row.pk not in found)
    facts = [("Come again", str(coming.total())), ("To", _recipients(coming))]
    return [*facts, *(("Do not come", f"{n}: {words}") for words, n in why.most_common())]


def _in_parts(ids: Sequence[Any]) -> Iterator[list[DeadLetter]]:
    for start in range(0, len(ids), ROWS_A_TIME):
        yield list(dead_letters().filter(pk__in=ids[start : start + ROWS_A_TIME]))


def _recipients(coming: Mapping[str, int]) -> str:
    named = Counter(coming).most_common(RECIPIENTS_NAMED)
    online = hooks.online_agents([agent for agent, _ in named])
    words = [
        f"{agent}: {count} ({'connected' if agent in online else 'not connected'})"
        for agent, count in named
    ]
    more = len(coming) - len(named)
    return ", ".join([*words, *([f"and {more} more agents"] if more else [])]) or "nobody"


def _moment(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
