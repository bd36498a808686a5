"""The forms of a policy, a rule and a condition; `registry/admin/policies/page.py` joins them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from django import forms

from atp.errors import ATPError, MalformedDocument
from atp.judging.policy import (
    ACTIONS,
    FIELDS,
    OPERATORS,
    Argument,
    Field,
    compile_policies,
    operators_for,
    parse_condition,
    parse_field,
)
from atp.wire.canonical import parse
from atp.wire.words import SEVERITIES
from registry.admin.fields import add_refusal, reason_field
from registry.admin.policies.values import hint_for, parse_value
from registry.policies.actions import (
    HELD_ACTIONS,
    NAME_MAX_CHARS,
    check_supported,
    is_name_taken,
)
from registry.policies.models import Policy

RULES_MAX = 200  # on one page; split the policy beyond that
CONDITIONS_MAX = 20
BLANK_CHOICE = ("", "—")
_ZONE_HINT = "a time zone such as Europe/Berlin; empty means UTC"
_POINTER_HINT = "where in the payload, such as /data/amount"


def _field_choices() -> list[Any]:
    groups = groupby(FIELDS.values(), key=lambda field: field.group)
    return [
        BLANK_CHOICE,
        *((name.capitalize(), [(f.name, f.label) for f in group]) for name, group in groups),
    ]


def field_table() -> dict[str, Any]:
    """Return by field the help, argument, choices and operators that the page's script offers."""
    return {
        field.name: {
            "help": field.help_text,
            "argument": {Argument.ZONE: _ZONE_HINT, Argument.POINTER: _POINTER_HINT}.get(
                field.argument, ""
            ),
            "choices": field.choices,
            "operators": {
                operator.name: hint_for(field, operator) for operator in operators_for(field)
            },
        }
        for field in FIELDS.values()
    }


class PolicyForm(forms.Form):
    """The form of a policy without its rules.

    `version` is the version that the officer edits; `policy` is `None` for a new policy.
    """

    name = forms.CharField(max_length=NAME_MAX_CHARS, widget=forms.TextInput(attrs={"size": 60}))
    description = forms.CharField(
        required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 2})
    )
    mode = forms.ChoiceField(
        choices=Policy.Mode.choices,
        initial=Policy.Mode.MONITOR,
        help_text="Watch a new policy first: what it would have decided is recorded.",
    )
    mandatory = forms.BooleanField(
        required=False,
        help_text="Reported before all others. Only superusers may set or change it.",
    )
    priority = forms.IntegerField(
        min_value=0,
        max_value=32_767,
        initial=100,
        help_text="Lower numbers are reported first; they do not decide.",
    )
    version = forms.IntegerField(required=False, widget=forms.HiddenInput)
    reason = reason_field(help_text="Kept with this version and in the trail.")

    def __init__(self, *args: Any, policy: Policy | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.policy = policy

    def clean_name(self) -> str:
        """Raise `ValidationError` if another policy has the name."""
        name: str = self.cleaned_data["name"]
        if is_name_taken(name, self.policy):
            raise forms.ValidationError("There is a policy of this name; choose another one.")
        return name

    def clean(self) -> dict[str, Any]:
        """Refuse a mandatory policy that only monitors."""
        cleaned = self.cleaned_data
        if cleaned.get("mandatory") and cleaned.get("mode") == Policy.Mode.MONITOR:
            self.add_error("mandatory", "What is mandatory is enforced; change the mode as well.")
        return cleaned


class RuleForm(forms.Form):
    """The form of one rule without its conditions."""

    name = forms.CharField(
        max_length=160,
        help_text="Senders read it when it decides.",
        widget=forms.TextInput(attrs={"size": 60}),
    )
    action = forms.ChoiceField(
        choices=[(a.name, a.label) for a in ACTIONS.values() if a.name not in HELD_ACTIONS],
        initial="deny",
    )
    severity = forms.ChoiceField(
        choices=[(name, name) for name in SEVERITIES],
        initial="medium",
        help_text="How much a violation weighs in the sender's score.",
    )
    priority = forms.IntegerField(min_value=0, max_value=32_767, initial=100)
    always = forms.BooleanField(
        required=False, label="for everything", help_text="Without any condition."
    )
    throttle_limit = forms.IntegerField(
        required=False, min_value=1, max_value=1_000_000, label="envelopes of one sender"
    )
    throttle_seconds = forms.IntegerField(
        required=False, min_value=1, max_value=86_400, label="in seconds"
    )

    def clean(self) -> dict[str, Any]:
        """Require limit and time of a rule that throttles, and refuse them of others."""
        cleaned = self.cleaned_data
        throttles = cleaned.get("action") == "throttle"
        for name in ("throttle_limit", "throttle_seconds"):
            if throttles and name not in self.errors and cleaned.get(name) is None:
                self.add_error(name, "A rule that throttles needs a limit and a time.")
            if not throttles and cleaned.get(name) is not None:
                self.add_error(name, "Only a rule that throttles has a limit; empty this field.")
        return cleaned

    def to_document(self, conditions: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the rule as a member of a policy document; call it only on a valid form."""
        cleaned = self.cleaned_data
        document = {
            name: cleaned[name] for name in ("name", "action", "severity", "priority", "always")
        }
        if cleaned["action"] == "throttle":
            limits = (cleaned["throttle_limit"], cleaned["throttle_seconds"])
            document["throttle"] = dict(zip(("limit", "per_seconds"), limits, strict=True))
        return {**document, "conditions": conditions}


class ConditionForm(forms.Form):
    """The form of one condition: field, argument (zone or payload pointer), operator, value."""

    field = forms.ChoiceField(
        choices=_field_choices, widget=forms.Select(attrs={"aria-label": "Field"})
    )
    argument = forms.CharField(
        required=False,
        max_length=150,
        label="of",
        widget=forms.TextInput(
            attrs={
                "size": 18,
                "placeholder": "zone or payload pointer",
                "aria-label": "Time zone or payload pointer",
            }
        ),
    )
    operator = forms.ChoiceField(
        choices=[BLANK_CHOICE, *((o.name, o.label) for o in OPERATORS.values())],
        widget=forms.Select(attrs={"aria-label": "Operator"}),
    )
    value = forms.CharField(
        required=False,
        max_length=4000,
        strip=False,
        widget=forms.TextInput(attrs={"size": 34, "aria-label": "Value"}),
    )

    def clean(self) -> dict[str, Any]:
        """Check that operator and value fit the field."""
        cleaned = self.cleaned_data
        name, operator = cleaned.get("field"), cleaned.get("operator")
        if not name or not operator:
            return cleaned
        field = FIELDS[name]
        text = self._field_text(name, cleaned.get("argument", "").strip())
        if OPERATORS[operator] not in operators_for(field):
            offered = ", ".join(offer.label for offer in operators_for(field))
            self.add_error("operator", f"Does not apply to {field.label}; use: {offered}.")
        if not self.errors:
            self._check_value(field, text, operator)
        return cleaned

    def to_document(self) -> dict[str, Any]:
        """Return the condition as a member of a policy document; only on a valid form."""
        document: dict[str, Any] = self.cleaned_data["document"]
        return document

    def _field_text(self, name: str, argument: str) -> str:
        text = f"{name}:{argument}" if argument else name
        try:
            parse_field(text)
        except MalformedDocument as problem:
            self.add_error("argument", problem.detail)
        return text

    def _check_value(self, field: Field, text: str, operator: str) -> None:
        try:
            value = parse_value(field, OPERATORS[operator], self.cleaned_data.get("value", ""))
            parse_condition(text, operator, value)
        except MalformedDocument as problem:  # it is a ValueError too
            add_refusal(self, problem)
        except ValueError as problem:
            self.add_error("value", str(problem))
        else:
            self.cleaned_data["document"] = {"field": text, "operator": operator, "value": value}


class DocumentForm(forms.Form):
    """The form that reads a policy document pasted as JSON, to show it in the policy page."""

    document = forms.CharField(
        label="JSON",
        widget=forms.Textarea(attrs={"rows": 20, "cols": 90, "spellcheck": "false"}),
        help_text="One policy document: name, mode, rules. Nothing is saved yet.",
    )

    def clean_document(self) -> dict[str, Any]:
        """Return the policy document; raise `ValidationError` if it is no policy."""
        try:
            value = parse(self.cleaned_data["document"])
            if isinstance(value, list) and len(value) == 1:
                value = value[0]
            if not isinstance(value, dict):
                raise MalformedDocument("one policy is a JSON object")
            compile_policies([value])
            _check_fits_page(value)
        except ATPError as problem:
            raise forms.ValidationError(problem.detail) from problem
        return value


class ModeForm(forms.Form):
    """The form that sets a policy's mode: enforce, monitor or off."""

    mode = forms.ChoiceField(choices=Policy.Mode.choices)
    reason = reason_field(help_text="Kept with the new version and in the trail.")


def _check_fits_page(document: Mapping[str, Any]) -> None:
    check_supported(document)
    rules = document["rules"]
    if len(rules) > RULES_MAX:
        raise MalformedDocument(f"{len(rules)} rules; split it into policies of {RULES_MAX}")
    if any(len(rule.get("conditions", ())) > CONDITIONS_MAX for rule in rules):
        raise MalformedDocument(f"a rule has more than {CONDITIONS_MAX} conditions; split it")
