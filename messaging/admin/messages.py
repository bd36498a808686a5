"""The admin pages of traffic: envelopes with the reason of their verdict, sessions, nodes.

All pages are read-only.
"""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from atp.errors import BY_CODE, MalformedDocument
from atp.judging.scoring import explain as explain_score
from atp.judging.scoring import score
from atp.types import MessageType
from atp.wire.words import SENSITIVITIES
from messaging.judging.evidence import judge_again
from messaging.mail.done_places import DonePlaces
from messaging.mail.waiting import done_in
from messaging.models import Delivery, Envelope, Mailbox, Node, Session
from registry.admin.lists import DealtWithFilter, DottedWordsFilter, WordsFilter, badge
from registry.admin.pages import GrowingList, ReadOnlyAdmin
from registry.admin.policies.explaining import explain
from registry.admin.readings import entered, list_of
from registry.agents.models import AgentKey
from registry.officers.readings import PageOpened
from registry.trail.kinds import Kind
from registry.trail.models import Entry

LONGEST_CONTENT = 20_000  # characters of an envelope shown on its page


class MessageTypeFilter(WordsFilter):
    """Filters envelopes by the type of their message."""

    title = "message type"
    parameter_name = "message_type"
    words = tuple(kind.value for kind in MessageType)


class SensitivityFilter(WordsFilter):
    """Filters envelopes by the sensitivity of their data."""

    title = parameter_name = "sensitivity"
    words = SENSITIVITIES


class CodeFilter(DottedWordsFilter):
    """Filters envelopes by the code of their refusal."""

    title = parameter_name = "code"
    words = tuple(sorted(BY_CODE))
    may_be_empty = True


@admin.register(Envelope)
class EnvelopeAdmin(GrowingList[Any]):
    """The pages of judged envelopes."""

    when_empty = (
        "Nothing was sent yet: agents send once their key is approved and they are attested."
    )
    list_display = ("judged_at", "status_badge", "sender_link", "target", "message_type", "why")
    list_filter = ("status", MessageTypeFilter, SensitivityFilter, CodeFilter)
    search_fields = ("=message_id", "=sender__id", "=target", "=request_id")
    search_help_text = "A message id, an agent id or a request id, in full."
    list_select_related = ()
    date_hierarchy = None
    fieldsets = (
        (
            "What became of it",
            {"fields": ("status_badge", "why", "level", "score", "score_in_words", "decision")},
        ),
        (
            "Who and what",
            {
                "fields": (
                    "sender_link",
                    "target",
                    "message_type",
                    "message_id",
                    "request_id",
                    "sensitivity",
                    "requires_trust",
                    "judged_at",
                    "expires_at",
                )
            },
        ),
        ("On its way", {"fields": ("recipients", "delivery_list", "trail", "batch_id")}),
        ("What led to it", {"fields": ("chain",)}),
        (
            "As it was signed",
            {"fields": ("digest", "kid", "in_doubt", "size", "readable_content")},
        ),
    )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Enter that the list is opened, with its search and filters, and show it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        opened = list_of(Kind.TRAFFIC_READ, "envelopes", request)
        show = super().changelist_view
        return entered(request, opened, lambda: show(request, extra_context))

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Enter that the envelope is opened, and show it with its payload."""
        row = self.get_row(request, object_id)
        opened = PageOpened(
            Kind.TRAFFIC_READ, "envelope", sender=row.sender_id, message_id=row.message_id
        )
        show = super().row_page
        return entered(request, opened, lambda: show(request, object_id))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Envelope]:
        """Return envelopes, in the list without their content."""
        rows: QuerySet[Envelope] = super().get_queryset(request)
        match = request.resolver_match
        if match is not None and match.url_name == "messaging_envelope_changelist":
            return rows.defer("content")
        return rows

    @admin.display(description="sender", ordering="sender_id")
    def sender_link(self, row: Envelope) -> SafeString:
        """A link to the sender's page."""
        url = reverse("admin:registry_agent_change", args=[row.sender_id])
        return format_html('<a href="{}">{}</a>', url, row.sender_id)

    @admin.display(description="verdict", ordering="status")
    def status_badge(self, row: Envelope) -> SafeString:
        """The verdict as a coloured badge."""
        return badge(row.status)

    @admin.display(description="why")
    def why(self, row: Envelope) -> str:
        """The code and detail of a refusal; a dash if it was accepted."""
        return f"{row.code}: {row.detail}" if row.code else "-"

    @admin.display(description="weakest link")
    def chain(self, row: Envelope) -> str:
        """Return the length of the chain, and its lowest level and score."""
        count = f"{row.chain_depth} envelope{'s' if row.chain_depth > 1 else ''}"
        if not row.chain_lowest_level:
            return count
        weakest = f"lowest level {row.chain_lowest_level}, score {row.chain_lowest_score}"
        sensitivity = row.chain_sensitivity or row.sensitivity
        return f"{count}; {weakest}; highest sensitivity {sensitivity}"

    @admin.display(description="rule by rule")
    def decision(self, row: Envelope) -> str:
        """Return each rule of the policies of that time, with the values that it tested."""
        context: dict[str, Any] = {}
        try:
            verdict, _ = judge_again(row)
            if verdict.decision is None:
                return "It was refused before any policy was asked."
            payload = json.loads(bytes(row.content))["ATP"]["payload"] if row.content else None
            record = verdict.decision.to_record()
            context["rules"] = explain(record, row.judged_at, payload=payload)
        except MalformedDocument as problem:
            context["problem"] = problem.detail
        return render_to_string("admin/messaging/envelope/decision.html", context)

    @admin.display(description="what the score was made of")
    def score_in_words(self, row: Envelope) -> str:
        """The parts of the sender's score, computed from the recorded inputs."""
        try:
            verdict, facts = judge_again(row)
        except MalformedDocument as problem:
            return problem.detail
        if verdict.inputs is None:
            return "It was refused before its sender's score was computed."
        result = score(verdict.inputs, facts.now, facts.profile)
        context = {"lines": explain_score(result)}
        return render_to_string("admin/messaging/envelope/score.html", context)

    @admin.display(description="deliveries")
    def delivery_list(self, row: Envelope) -> SafeString | str:
        """The first 50 deliveries, with their states."""
        deliveries = list(row.deliveries.order_by("recipient_id")[:50])
        if not deliveries:
            return "It was given to no recipient."
        done = _done(deliveries)
        return format_html_join(
            SafeString("<br>"),
            "{} ({} {}): {}",
            ((d.recipient_id, d.stream, d.seq, _delivery_state(d, done)) for d in deliveries),
        )

    @admin.display(description="trail")
    def trail(self, row: Envelope) -> SafeString | str:
        """Links to the first 50 entries of the trail about this envelope."""
        entries = Entry.objects.filter(message_id=row.message_id, sender=row.sender_id)
        links = (
            (reverse("admin:registry_entry_change", args=[e.position]), e.index, e.kind)
            for e in entries.only("position", "kind")[:50]
        )
        return format_html_join(SafeString("<br>"), '<a href="{}">{} {}</a>', links) or "-"

    @admin.display(description="who signed it")
    def in_doubt(self, row: Envelope) -> SafeString | str:
        """The sender, or a warning if others may have had the key (docs/design/trust.md#keys)."""
        since = (
            AgentKey.objects.filter(pk=row.kid, compromised_since__lte=row.judged_at)
            .values_list("compromised_since", flat=True)
            .first()
        )
        if since is None:
            return f"{row.sender_id}, by its key"
        return format_html(
            '<span class="badge badge-denied">in doubt</span> Others may have had this key'
            " since {} UTC.",
            since.astimezone(UTC).strftime("%Y-%m-%d %H:%M"),
        )

    @admin.display(description="envelope")
    def readable_content(self, row: Envelope) -> SafeString | str:
        """The envelope as indented JSON, at most `LONGEST_CONTENT` characters."""
        if not row.content:
            return "It was denied, and too large to be kept; its digest tells which one it was."
        text = json.dumps(json.loads(bytes(row.content)), indent=2, ensure_ascii=False)
        cut = text[:LONGEST_CONTENT]
        more = "" if cut == text else f"\n... {len(text) - len(cut)} more characters"
        return format_html('<pre class="envelope">{}{}</pre>', cut, more)


class Closed(DealtWithFilter):
    """Filters sessions by whether they have ended."""

    column = "closed_at"
    waiting = ("open", "open")
    dealt_with = ("closed", "closed")


class CloseCodeFilter(DottedWordsFilter):
    """Filters sessions by the code with which they ended."""

    title = "close code"
    parameter_name = "close_code"
    words = tuple(sorted(BY_CODE))
    may_be_empty = True


@admin.register(Session)
class SessionAdmin(GrowingList[Any]):
    """The pages of sessions."""

    when_empty = "No agent has connected yet: an agent can once its key is approved."
    list_display = (
        "agent", "opened_at", "closed_at", "close_code", "send_only", "remote_address", "node"
    )  # fmt: skip
    list_filter = (Closed, "send_only", CloseCodeFilter)
    search_fields = ("=agent__id", "=remote_address")
    search_help_text = "An agent id or an address, in full."
    list_select_related = ("node",)


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin[Any]):
    """The pages of nodes."""

    list_display = ("name", "started_at", "lease_until", "stopped_at", "live_sessions")
    readonly_fields = ("live_sessions",)

    @admin.display(description="live sessions")
    def live_sessions(self, row: Node) -> int:
        """How many sessions of agents are open on the node."""
        return row.presences.count() + row.send_only_sessions.count()


@admin.register(Mailbox)
class MailboxAdmin(ReadOnlyAdmin[Any]):
    """The pages of mailboxes."""

    list_display = ("agent", "stream", "last_seq", "acked_seq", "waiting")
    list_filter = ("stream",)
    search_fields = ("=agent__id",)
    search_help_text = "An agent id, in full."

    @admin.display(description="waiting")
    def waiting(self, row: Mailbox) -> int:
        """How many deliveries wait for the agent."""
        return row.waiting


def _done(deliveries: list[Delivery]) -> dict[tuple[str, str], DonePlaces]:
    boxes = Mailbox.objects.filter(agent_id__in={d.recipient_id for d in deliveries})
    return {(box.agent_id, box.stream): done_in(box) for box in boxes}


def _delivery_state(delivery: Delivery, done: dict[tuple[str, str], DonePlaces]) -> str:
    if delivery.state != Delivery.State.WAITING:
        return delivery.get_state_display()
    places = done.get((delivery.recipient_id, delivery.stream), DonePlaces())
    return "acknowledged" if delivery.seq in places else "waits for its recipient"
