"""The admin pages of policies: rules as rows and in words, and versions with author and reason.

The pages have views of their own: Django's change view runs in a transaction, which would hold the
log lock for the whole request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.safestring import SafeString

from atp.errors import MalformedDocument
from registry.admin.lists import DealtWithFilter, badge
from registry.admin.pages import OfficerAdmin, Question, ReadOnlyAdmin, posted
from registry.admin.policies.forms import DocumentForm, ModeForm, field_table
from registry.admin.policies.page import PolicyPage, with_blank
from registry.admin.policies.starters import STARTERS
from registry.admin.policies.wording import differences_in_words, rule_in_words
from registry.change import ChangedMeanwhile
from registry.officers.actor import Actor
from registry.policies.actions import save_policy, set_mode
from registry.policies.models import Policy, PolicyVersion, RuleNotice
from registry.policies.notices import mark_seen

TEMPLATES = "admin/registry/policy"


@admin.register(Policy)
class PolicyAdmin(OfficerAdmin[Policy]):
    """The list of policies, the form of each, its history, its mode, and import from JSON."""

    change_list_template = f"{TEMPLATES}/change_list.html"
    list_display = ("name", "mode_badge", "rule_count", "mandatory", "priority", "last_change")
    list_filter = ("mode", "mandatory")
    search_fields = ("name", "description", "rules__name")
    search_help_text = "A word of a policy's or a rule's name."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Policy]:
        """Return policies with their number of rules and their versions."""
        rows = super().get_queryset(request).annotate(rule_total=Count("rules", distinct=True))
        versions = PolicyVersion.objects.defer("document").select_related("created_by")
        return rows.prefetch_related(Prefetch("versions", versions))

    def get_urls(self) -> list[URLPattern]:
        """Return the addresses of the officers' decisions, then Django's own."""
        return [
            self.decision_url("import/", self.import_view),
            self.decision_url("<path:object_id>/mode/", self.mode_view),
            *super().get_urls(),
        ]

    def has_change_permission(self, request: HttpRequest, obj: Policy | None = None) -> bool:
        """Return whether the user may change the policy, which may be mandatory."""
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or not obj.mandatory or _may_mandate(request))

    @admin.display(description="mode", ordering="mode")
    def mode_badge(self, row: Policy) -> SafeString:
        """Return the mode: enforce, monitor or off."""
        return badge(row.mode)

    @admin.display(description="rules", ordering="rule_total")
    def rule_count(self, row: Policy) -> int:
        """Return the number of rules."""
        count: int = getattr(row, "rule_total", 0)
        return count

    @admin.display(description="last change")
    def last_change(self, row: Policy) -> str:
        """Return number, time (UTC) and author of the newest version."""
        version = next(iter(row.versions.all()), None)
        if version is None:
            return "-"
        return f"v{version.number}, {version.created_at:%Y-%m-%d %H:%M}, {_who(version)}"

    def add_page(self, request: HttpRequest) -> HttpResponse:
        """Show an empty editor, or one with the rules of a starter."""
        starter = STARTERS.get(request.GET.get("start", ""))
        document = starter.document if starter else {}
        return self._page(request, None, document, show_starters=starter is None)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the editor of a policy, or its text to users who may not change it."""
        policy = self.get_row(request, object_id)
        versions = list(PolicyVersion.objects.filter(policy=policy))
        shown = _chosen(versions, request.GET.get("version", ""))
        if not self.has_change_permission(request, policy):
            return self._render(request, "read.html", policy, _reading(shown))
        return self._page(request, policy, shown.document, version=versions[0].number)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        """Show each version with its author and its changes."""
        policy = self.get_row(request, object_id)
        versions = list(PolicyVersion.objects.filter(policy=policy).select_related("created_by"))
        earlier: list[Any] = [*(version.document for version in versions[1:]), None]
        rows = [
            {
                "version": version,
                "who": _who(version),
                "changes": differences_in_words(before, version.document),
            }
            for version, before in zip(versions, earlier, strict=True)
        ]
        return self._render(request, "history.html", policy, {"rows": rows})

    def mode_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Set a policy's mode and leave its rules as they are."""
        policy = self.get_row(request, object_id, to_change=True)
        form = ModeForm(posted(request), initial={"mode": policy.mode})
        question = Question(
            title=f"Change the mode of {policy}",
            text="Off takes the place of deleting: the versions stay, because decisions on record"
            " refer to them.",
            button="Change mode",
            back=self.url("change", policy.pk),
            about=(policy,),
        )

        def run(values: Mapping[str, Any], actor: Actor) -> str:
            set_mode(policy, **values, actor=actor)
            return f"Policy “{policy}” is set to {values['mode']}."

        return self.decide(request, form, question, run)

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """Read a pasted document and show it in the form, without saving it."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = DocumentForm(posted(request))
        if form.is_valid():
            page = PolicyPage(form.cleaned_data["document"], may_mandate=_may_mandate(request))
            messages.info(request, "Nothing is saved yet: look at it, say why, and save.")
            return self._show(request, None, page)
        return self._render(request, "import.html", None, {"form": form})

    def _page(
        self,
        request: HttpRequest,
        policy: Policy | None,
        document: Mapping[str, Any],
        *,
        version: int = 0,
        show_starters: bool = False,
    ) -> HttpResponse:
        data = posted(request)
        if data is not None and "_add" in data:
            data = with_blank(data, data["_add"])
        page = PolicyPage(
            document,
            data=data,
            policy=policy,
            version=version,
            may_mandate=_may_mandate(request),
        )
        if data is not None and "_add" not in data and page.is_valid():
            saved = self._save(request, policy, page)
            if saved is not None:
                messages.success(request, f"Policy “{saved}” is saved in mode {saved.mode}.")
                return HttpResponseRedirect(self.url("change", saved.pk))
        return self._show(request, policy, page, show_starters=show_starters)

    def _save(self, request: HttpRequest, policy: Policy | None, page: PolicyPage) -> Policy | None:
        try:
            return save_policy(
                page.to_document(),
                policy=policy,
                expected_version=page.form.cleaned_data["version"] if policy else None,
                actor=Actor.of_user(request.user),
                reason=page.form.cleaned_data["reason"],
            )
        except MalformedDocument as problem:
            page.add_problem(problem)
        except ChangedMeanwhile as problem:
            page.form.add_error(None, str(problem))
        return None

    def _show(
        self,
        request: HttpRequest,
        policy: Policy | None,
        page: PolicyPage,
        *,
        show_starters: bool = False,
    ) -> HttpResponse:
        context = {
            "page": page,
            "sections": list(page.sections()),
            "blank": page.blank_section(),
            "fields": field_table(),
            "starters": STARTERS if show_starters else {},
            "form_url": "" if policy else self.url("add"),
        }
        return self._render(request, "change_form.html", policy, context)

    def _render(
        self,
        request: HttpRequest,
        template: str,
        policy: Policy | None,
        context: Mapping[str, Any],
    ) -> HttpResponse:
        title = str(policy) if policy else "Add policy"
        return self.render(request, f"policy/{template}", title=title, policy=policy, **context)


def _may_mandate(request: HttpRequest) -> bool:
    """Return whether the user may change mandatory policies: only superusers may.

    See docs/design/trust.md#deciding.
    """
    return bool(request.user.is_active and request.user.is_superuser)


def _who(version: PolicyVersion) -> str:
    return version.created_by.get_username() if version.created_by else "the hub"


def _chosen(versions: list[PolicyVersion], number: str) -> PolicyVersion:
    return next((v for v in versions if str(v.number) == number), versions[0])


def _reading(version: PolicyVersion) -> dict[str, Any]:
    rules = version.document["rules"]
    words = [{"name": rule["name"], "words": rule_in_words(rule)} for rule in rules]
    return {"version": version, "rules": words}


class Unseen(DealtWithFilter):
    """Notices that officers have or have not seen."""

    column = "seen_at"
    waiting = ("unseen", "not seen yet")
    dealt_with = ("seen", "seen")


class OfPolicy(admin.SimpleListFilter):
    """Filters notices by their policy. Policies are few, and are never deleted."""

    title = parameter_name = "policy"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices of the filter: the value in the URL, and the words."""
        names = Policy.objects.order_by("name").values_list("name", flat=True)
        return [(name, name) for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that the chosen value selects."""
        value = self.value()
        return queryset if value is None else queryset.filter(policy=value)


@admin.register(RuleNotice)
class RuleNoticeAdmin(ReadOnlyAdmin[RuleNotice]):
    """The list of notices of `notify` rules. Officers mark them as seen."""

    when_empty = "There are none yet. A rule with the action Notify puts its matches here."
    list_display = ("last_at", "rule", "sender", "recipient", "count", "first_at", "state")
    list_filter = (Unseen, OfPolicy)
    search_fields = ("=sender", "rule")
    search_help_text = "An agent id in full, or a word of the rule."
    actions = ("mark_as_seen",)

    def has_see_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may mark notices as seen."""
        return request.user.has_perm("registry.change_rulenotice")

    @admin.display(description="state", ordering="seen_at")
    def state(self, row: RuleNotice) -> str:
        """Return when the notice was seen, and by which account."""
        if row.seen_at is None:
            return "not seen yet"
        return f"seen {row.seen_at:%Y-%m-%d %H:%M} by {row.seen_by or 'an officer'}"

    @admin.action(description="Mark as seen", permissions=["see"])
    def mark_as_seen(self, request: HttpRequest, queryset: QuerySet[RuleNotice]) -> None:
        """Mark the selected notices as seen."""
        ids = list(queryset.values_list("pk", flat=True))
        count = mark_seen(ids, actor=Actor.of_user(request.user))
        messages.success(request, f"{count} notification{'s' * (count != 1)} marked as seen.")
