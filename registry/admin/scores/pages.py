"""The admin pages of scores with their explanations, of violations, and of the scoring profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from atp.errors import MalformedDocument
from atp.judging.scoring import COMPONENTS, LineKind, Profile, TrustScore, explain, score
from registry.admin.bulk import BulkAdmin
from registry.admin.lists import DottedWordsFilter
from registry.admin.pages import GrowingList, OfficerAdmin, Question, posted
from registry.admin.scores.forms import NUMBERS, TABLES, CloseForm, ProfileForm
from registry.agents.models import Agent
from registry.officers.actor import Actor
from registry.scores.actions import PERIODIC, inputs_of, save_profile
from registry.scores.models import Score, ScoringProfile, Violation
from registry.scores.querysets import current_profile, recompute_stored, scores
from registry.trail.kinds import Kind

# What the events are about after which scores are computed.
EVENTS = ("agent", "key", "issuer", "attestation", "profile", "violation")
IN_WORDS = 5  # violations on the page that closes or annuls them
COMPONENT_LABELS = {
    "identity": "Identity verification",
    "freshness": "Credential freshness",
    "capability": "Capability alignment",
    "compliance": "Policy compliance",
    "crypto": "Cryptographic security",
}


class Newest(admin.SimpleListFilter):
    """Filters scores: the newest of each agent by default, or all stored ones."""

    title = "age"
    parameter_name = "which"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices of the filter: the value in the URL, and the words."""
        return [("all", "with earlier ones")]

    def choices(self, changelist: Any) -> Any:
        """Name the default choice "current scores"."""
        default, *others = super().choices(changelist)
        return [{**default, "display": "current scores"}, *others]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Score]) -> QuerySet[Score]:
        """Return the rows that the chosen value selects."""
        if self.value() == "all":
            return queryset
        own = scores().filter(agent=OuterRef("pk")).order_by("-id").values("id")[:1]
        return queryset.filter(id__in=Agent.objects.values(newest=Subquery(own)))


class Because(DottedWordsFilter):
    """Filters scores by the event that led to their computation."""

    title = "event"
    parameter_name = "because"
    words = (PERIODIC, *(kind.value for kind in Kind if kind.about in EVENTS))


class Open(admin.SimpleListFilter):
    """Filters violations by what officers have done about them."""

    title = parameter_name = "state"
    columns: ClassVar[Mapping[str, Mapping[str, bool]]] = {
        "open": {"closed_at__isnull": True},
        "closed": {"closed_at__isnull": False, "annulled_at__isnull": True},
        "annulled": {"annulled_at__isnull": False},
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in self.columns]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**self.columns.get(self.value() or "", {}))


@admin.register(Score)
class ScoreAdmin(GrowingList[Score]):
    """The list of stored scores and the page that explains one."""

    list_display = ("agent", "total", "because", "computed_at", "now_link")
    list_filter = (Newest, Because)
    search_fields = ("=agent__id",)
    search_help_text = "An agent id, in full."
    list_select_related = ("agent",)

    def get_urls(self) -> list[URLPattern]:
        """Return the address of the page that explains a score now, then Django's own."""
        now = self.admin_site.admin_view(self.now_view)
        return [
            path("agent/<str:agent_id>/", now, name="registry_score_now"),
            *super().get_urls(),
        ]

    @admin.display(description="explain")
    def now_link(self, row: Score) -> SafeString:
        """Return a link to the page that explains the agent's score at this moment."""
        url = reverse(f"{self.admin_site.name}:registry_score_now", args=[row.agent_id])
        return format_html('<a href="{}">as of now</a>', url)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Explain a stored score, and compute it again to show that its inputs give the same."""
        row = self.get_row(request, object_id)
        try:
            result, problem = recompute_stored(row), ""
        except MalformedDocument as exc:
            result, problem = None, exc.detail
        return self.render(
            request,
            "score/explain.html",
            title=f"Score of {row.agent_id} at {row.computed_at:%Y-%m-%d %H:%M:%S} UTC",
            agent_id=row.agent_id,
            row=row,
            problem=problem,
            same=result is not None and result.total == row.total,
            **_explanation(result),
        )

    def now_view(self, request: HttpRequest, agent_id: str) -> HttpResponse:
        """Explain an agent's score at this moment, without storing it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        profile, now = current_profile(), datetime.now(UTC)
        inputs = inputs_of([agent_id], now.timestamp(), profile=profile).get(agent_id)
        if inputs is None:
            raise Http404
        result = score(inputs, now.timestamp(), profile)
        return self.render(
            request,
            "score/explain.html",
            title=f"Score of {agent_id} now",
            agent_id=agent_id,
            stored=scores().about([agent_id]).newest().first(),
            **_explanation(result),
        )


@admin.register(ScoringProfile)
class ScoringProfileAdmin(OfficerAdmin[ScoringProfile]):
    """The list of versions of the scoring profile, and the form that makes the next one."""

    list_display = ("__str__", "created_at", "created_by", "reason")
    list_display_links = ("__str__",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return `False`: a stored version never changes."""
        return False  # a version never changes: to change the profile, add a version

    def add_page(self, request: HttpRequest) -> HttpResponse:
        """Show the form that stores a new version of the profile."""
        form = ProfileForm(posted(request), profile=current_profile())
        question = Question(
            title="Change the profile",
            text="Saving makes a new version and computes every score again. Scores already stored"
            " keep the version they were computed by.",
            button="Save as a new version",
            back=self.url("changelist"),
        )

        def run(values: Mapping[str, Any], actor: Actor) -> str:
            profile = save_profile(
                form.to_values(),
                actor=actor,
                reason=values["reason"],
                expected_version=values["version"],
            )
            return f"Version {profile.version} is in force."

        template = "scoringprofile/change_form.html"
        return self.decide(request, form, question, run, template=template)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show one version with its changes."""
        row = self.get_row(request, object_id)
        before = ScoringProfile.objects.filter(version__lt=row.version).first()
        return self.render(
            request,
            "scoringprofile/read.html",
            title=str(row),
            row=row,
            numbers=_numbers(row.document, before.document if before else row.document),
        )


@admin.register(Violation)
class ViolationAdmin(BulkAdmin[Violation]):
    """The list of violations, the page of each, and the forms that close and annul them."""

    when_empty = "There are none: no rule denied an agent, and no agent sent a bad signature."
    list_display = ("at", "agent", "severity", "rule", "state")
    list_filter = (Open, "severity")
    list_select_related = ("agent",)
    search_fields = ("=agent__id", "rule", "=message_id")
    search_help_text = "An agent id or a message id in full, or a word of the rule."
    actions = ("close_selected", "annul_selected")

    def get_urls(self) -> list[URLPattern]:
        return [
            self.decision_url("close/", self.close_view),
            self.decision_url("annul/", self.annul_view),
            *super().get_urls(),
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return `False`: the hub records violations."""
        return False

    def has_close_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may close and annul violations."""
        return self.has_change_permission(request)

    @admin.display(description="state", ordering="closed_at")
    def state(self, row: Violation) -> str:
        """Return "open", or the date on which it was annulled or closed (UTC)."""
        if row.annulled_at:
            return f"annulled {row.annulled_at:%Y-%m-%d}"
        return f"closed {row.closed_at:%Y-%m-%d}" if row.closed_at else "open"

    @admin.action(description="Close, with a reason", permissions=["close"])
    def close_selected(self, request: HttpRequest, queryset: QuerySet[Violation]) -> HttpResponse:
        return self.for_many(request, queryset, "close", "violation.close")

    @admin.action(description="Annul, with a reason", permissions=["close"])
    def annul_selected(self, request: HttpRequest, queryset: QuerySet[Violation]) -> HttpResponse:
        return self.for_many(request, queryset, "annul", "violation.annul")

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the page of one row."""
        row = self.get_row(request, object_id)
        return self.render(
            request,
            "violation/read.html",
            title=str(row),
            row=row,
            may_change=self.has_change_permission(request, row),
        )

    def close_view(self, request: HttpRequest) -> HttpResponse:
        """Close one or several violations with one reason."""
        question = Question(
            title="Close violations",
            text="Closing an open critical violation lifts the ceiling on the score. What a"
            " violation costs fades with time, closed or not. If it was a mistake, annul it.",
            button="Close",
            back=self.url("changelist"),
        )
        return self._deal_with(request, question, "violation.close")

    def annul_view(self, request: HttpRequest) -> HttpResponse:
        """Annul one or several violations with one reason."""
        question = Question(
            title="Annul violations",
            text="Annul a violation that was a mistake, such as one by a wrong rule. It stays on"
            " record, and counts for no score and no ceiling from now on. First correct or turn off"
            " the rule: it makes new ones.",
            button="Annul",
            back=self.url("changelist"),
        )
        return self._deal_with(request, question, "violation.annul")

    def _deal_with(self, request: HttpRequest, question: Question, decision: str) -> HttpResponse:
        form = CloseForm(posted(request))
        return self.decide_many(request, decision, form, question, _in_words)


def _in_words(ids: Sequence[Any]) -> Sequence[tuple[str, str]]:
    """Return the first violations in words, and how many of all are closed or annulled already."""
    rows = Violation.objects.filter(pk__in=ids)
    closed = rows.exclude(closed_at=None).count()
    annulled = rows.exclude(annulled_at=None).count()
    shown = "; ".join(
        f"{row.at:%Y-%m-%d %H:%M} UTC, {row.agent_id}: {row.severity}, rule “{row.rule}”"
        for row in rows[:IN_WORDS]
    )
    return ("First", shown), ("Now", f"{closed} closed, {annulled} of them annulled")


def _explanation(result: TrustScore | None) -> dict[str, Any]:
    """Return the tables of the page that explains a score."""
    if result is None:
        return {"result": None}
    lines = explain(result)
    words = {line.component: line.words for line in lines if line.kind == LineKind.EARNED}
    weights = result.profile.weights
    return {
        "result": result,
        "components": [
            {
                "label": COMPONENT_LABELS[name],
                "earned": result.components[name] / 1000,
                "most": weights[name],
                "lost": weights[name] - result.components[name] / 1000,
                "words": words[name],
            }
            for name in COMPONENTS
        ],
        "costs": [line for line in lines if line.kind == LineKind.COST],
        "ceilings": sorted(result.ceilings, key=lambda ceiling: ceiling[1]),
        "inputs": _readable_inputs(result),
        "profile": result.profile,
    }


def _readable_inputs(result: TrustScore) -> list[tuple[str, str]]:
    readable = []
    for name, value in result.inputs.to_dict().items():
        if name in ("issued_at", "expires_at") and value is not None:
            value = f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC"
        elif name == "violations":
            value = f"{len(value)}, see above" if value else "none"
        elif isinstance(value, list):
            value = ", ".join(value) or "none"
        readable.append((name.replace("_", " "), "none" if value is None else str(value)))
    return readable


def _numbers(document: Mapping[str, Any], before: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every number of a profile, with its value in the version before."""
    Profile.from_dict(document)
    rows = [
        {"label": f"{heading}: {key}", "value": value, "before": before[table][key]}
        for table, heading in TABLES.items()
        for key, value in document[table].items()
    ]
    rows += [
        {"label": label, "value": document[name], "before": before[name]}
        for name, label in NUMBERS.items()
    ]
    return rows
