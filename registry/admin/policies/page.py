"""The form page of a policy: the policy, its rules, and the conditions of each rule as rows.

Django's formsets are nested by prefix: `rules-0-name`, `rules-0-conditions-1-field`.
`PolicyPage.to_document` makes the policy document that `save_policy` takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.forms.formsets import formset_factory

from atp.errors import MalformedDocument
from atp.judging.policy import FIELDS, OPERATORS, split_field
from registry.admin.policies.forms import (
    CONDITIONS_MAX,
    RULES_MAX,
    ConditionForm,
    PolicyForm,
    RuleForm,
)
from registry.admin.policies.values import format_value
from registry.admin.policies.wording import rule_in_words
from registry.policies.models import Policy

BLANK_CONDITIONS = 2  # empty rows of a new rule; a button adds more
# Members of a document that have another name in a form.
_RULE_FIELDS = {
    "conditions": "always",
    "throttle.limit": "throttle_limit",
    "throttle.per_seconds": "throttle_seconds",
}
_CONDITION_FIELDS = {"field": "argument"}  # the field itself is chosen from a list

_RuleFormSet = formset_factory(
    RuleForm, extra=0, can_delete=True, max_num=RULES_MAX, validate_max=True
)
_ConditionFormSet = formset_factory(
    ConditionForm, extra=0, can_delete=True, max_num=CONDITIONS_MAX, validate_max=True
)


@dataclass(frozen=True, slots=True)
class RuleSection:
    """One rule on the page: its form, its conditions, its text, and whether it is unfolded."""

    form: Any
    conditions: Any
    words: str
    is_open: bool


class PolicyPage:
    """The forms of a policy with its rules and conditions, from a document or from a POST."""

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        data: Any = None,
        policy: Policy | None = None,
        version: int = 0,
        may_mandate: bool = False,
    ) -> None:
        self.checked = False
        self._grown = "" if data is None else data.get("_add", "")
        initial = {name: document[name] for name in PolicyForm.base_fields if name in document}
        self.form = PolicyForm(data, initial={**initial, "version": version}, policy=policy)
        self.form.fields["mandatory"].disabled = not may_mandate
        given = document.get("rules", ()) if data is None else ()
        self.rules: Any = _RuleFormSet(
            data, prefix="rules", initial=[_rule_initial(rule) for rule in given]
        )
        self.rules.extra = 0 if given else 1
        self._conditions = [
            _conditions_of(form, data, given[index] if index < len(given) else {})
            for index, form in enumerate(self.rules.forms)
        ]

    def is_valid(self) -> bool:
        """Check all forms, so that the page shows all errors at once, each at its field."""
        self.checked = True
        for form, conditions in self._pairs():
            # An empty rule is left out. A rule with conditions and no name is an error.
            if any(condition.has_changed() for condition in conditions.forms):
                form.empty_permitted = False
        sound = [self.form.is_valid(), self.rules.is_valid()]
        sound += [conditions.is_valid() for _, conditions in self._kept()]
        if all(sound):
            sound += [_check_scope(form, conditions) for form, conditions in self._kept()]
            sound.append(self._check_names())
        return all(sound)

    def to_document(self) -> dict[str, Any]:
        """Return the policy as a document; call it only after `is_valid`."""
        names = ("name", "description", "mode", "mandatory", "priority")
        return {
            **{name: self.form.cleaned_data[name] for name in names},
            "rules": [form.to_document(_documents(rows)) for form, rows in self._kept()],
        }

    def add_problem(self, problem: MalformedDocument) -> None:
        """Show the error at the field that it names, or at the top of the form."""
        form, name = self._field_at(problem.field.split(".") if problem.field else [])
        form.add_error(name if name in form.fields else None, problem.detail)

    def sections(self) -> Iterator[RuleSection]:
        """Yield the rules in order. New, changed and wrong ones are unfolded."""
        for index, (form, conditions) in enumerate(self._pairs()):
            wrong = self.checked and bool(form.errors or any(conditions.errors))
            is_new = index >= self.rules.initial_form_count()
            grew = self._grown.startswith(f"{form.prefix}-")
            words = self._words(form, conditions)
            yield RuleSection(form, conditions, words, wrong or is_new or grew)

    def blank_section(self) -> RuleSection:
        """Return an empty rule, which the page's script copies when an officer adds one."""
        form = self.rules.empty_form
        return RuleSection(form, _conditions_of(form, None, {}), "", True)

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        return zip(self.rules.forms, self._conditions, strict=True)

    def _kept(self) -> list[tuple[Any, Any]]:
        """Return the rules that are neither empty nor marked for removal."""
        return [
            (form, conditions)
            for form, conditions in self._pairs()
            if (form.errors or form.cleaned_data) and not form.cleaned_data.get("DELETE")
        ]

    def _field_at(self, path: list[str]) -> tuple[Any, str]:
        """Return form and field name for a path such as `rules.0.conditions.1.value`."""
        match path:
            case ["rules", rule, "conditions", row, *member]:
                _, conditions = self._kept()[int(rule)]
                name = ".".join(member)
                return _filled(conditions)[int(row)], _CONDITION_FIELDS.get(name, name)
            case ["rules", rule, *member]:
                name = ".".join(member)
                return self._kept()[int(rule)][0], _RULE_FIELDS.get(name, name)
        return self.form, ".".join(path)

    def _check_names(self) -> bool:
        seen: set[str] = set()
        for form, _ in self._kept():
            name = form.cleaned_data["name"]
            if name in seen:
                form.add_error("name", "Another rule of this policy has this name.")
                return False
            seen.add(name)
        return True

    def _words(self, form: Any, conditions: Any) -> str:
        if not form.is_bound:
            document = form.initial.get("document") if form.initial else None
            return rule_in_words(document) if document else ""
        sound = self.checked and form.is_valid() and conditions.is_valid()
        if not sound or not form.cleaned_data:
            return ""
        return rule_in_words(form.to_document(_documents(conditions)))


def with_blank(data: Any, what: str) -> Any:
    """Return the data of a POST with one more empty row.

    `what` is the formset's prefix: `rules` for a rule, `rules-0-conditions` for a condition.
    """
    data = data.copy()
    counter = f"{what}-TOTAL_FORMS"
    if not str(data.get(counter, "")).isdigit():
        return data
    number = int(data[counter])
    data[counter] = str(number + 1)
    if what == "rules":
        inner = f"rules-{number}-conditions"
        for name, field in RuleForm.base_fields.items():
            if field.initial is not None:
                data[f"rules-{number}-{name}"] = str(field.initial)
        data[f"{inner}-TOTAL_FORMS"], data[f"{inner}-INITIAL_FORMS"] = str(BLANK_CONDITIONS), "0"
    return data


def _conditions_of(form: Any, data: Any, rule: Mapping[str, Any]) -> Any:
    """Return the condition forms of one rule. Empty rows are allowed and are left out."""
    given = rule.get("conditions", ())
    conditions: Any = _ConditionFormSet(
        data,
        prefix=f"{form.prefix}-conditions",
        initial=[_condition_initial(condition) for condition in given],
    )
    conditions.extra = 1 if given else BLANK_CONDITIONS
    for row in conditions.forms:
        row.empty_permitted = True
    return conditions


def _check_scope(form: Any, conditions: Any) -> bool:
    always, documents = form.cleaned_data["always"], _documents(conditions)
    if always and documents:
        form.add_error("always", "It has conditions; remove them, or untick this.")
    elif not always and not documents:
        form.add_error("always", "Add a condition, or tick this if it is meant for everything.")
    else:
        return True
    return False


def _documents(conditions: Any) -> list[dict[str, Any]]:
    return [form.to_document() for form in _filled(conditions)]


def _filled(conditions: Any) -> list[Any]:
    """Return the rows that are neither blank nor marked for removal."""
    return [
        form
        for form in conditions.forms
        if form.cleaned_data.get("field") and not form.cleaned_data.get("DELETE")
    ]


def _rule_initial(rule: Mapping[str, Any]) -> dict[str, Any]:
    throttle = rule.get("throttle") or {}
    return {
        "name": rule.get("name", ""),
        "action": rule.get("action", ""),
        "severity": rule.get("severity", "low"),
        "priority": rule.get("priority", 100),
        "always": rule.get("always", False),
        "throttle_limit": throttle.get("limit"),
        "throttle_seconds": throttle.get("per_seconds"),
        "document": rule,
    }


def _condition_initial(condition: Mapping[str, Any]) -> dict[str, Any]:
    name, argument = split_field(condition["field"])
    operator = OPERATORS[condition["operator"]]
    return {
        "field": name,
        "argument": argument,
        "operator": operator.name,
        "value": format_value(FIELDS[name], operator, condition.get("value")),
    }
