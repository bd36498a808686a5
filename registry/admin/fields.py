"""Fields and forms that the officers' pages share; nobody is asked to write JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC
from typing import Any

from django import forms

from atp.errors import ATPError
from registry.officers.reason import REASON_MAX_CHARS

SEPARATORS = re.compile(r"[\s,;]+")
LINES_MAX_CHARS = 20_000


class LinesField(forms.CharField):
    """A list of names, one a line; commas do as well."""

    def __init__(self, *, rows: int = 4, **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.Textarea(attrs={"rows": rows, "spellcheck": "false"}))
        super().__init__(max_length=LINES_MAX_CHARS, **kwargs)

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        return [part for part in SEPARATORS.split(text or "") if part]

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else "\n".join(self._texts(value))

    def validate(self, value: Any) -> None:
        if self.required and not value:
            raise forms.ValidationError(self.error_messages["required"], code="required")

    def run_validators(self, value: Any) -> None:
        super().run_validators("\n".join(self._texts(value)))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(list(self._texts(initial)) != self.to_python(data))

    @staticmethod
    def _texts(value: Iterable[str] | None) -> Iterable[str]:
        return value or ()


class MomentField(forms.DateTimeField):
    """A moment in UTC, by the browser's own picker."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault(
            "widget", forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
        )
        super().__init__(**kwargs)

    def to_python(self, value: Any) -> Any:
        moment = super().to_python(value)
        return moment if moment is None else moment.astimezone(UTC)


def add_refusal(form: forms.Form, refusal: ATPError) -> None:
    """Show why an action refused, at the field that the error names, or above the form."""
    field = getattr(refusal, "field", "").replace(".", "-")  # a member of a table
    form.add_error(field if field in form.fields else None, refusal.detail or refusal.code)


def reason_field(*, required: bool = True, help_text: str = "Kept in the trail.") -> Any:
    """Why an officer decides so."""
    return forms.CharField(
        label="Why",
        max_length=REASON_MAX_CHARS,
        required=required,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=help_text,
        error_messages={"required": "Say why: it is kept in the trail."},
    )


class ReasonForm(forms.Form):
    """Every decision that needs a reason and nothing else."""

    reason = reason_field()


class OptionalReasonForm(forms.Form):
    reason = reason_field(required=False, help_text="Kept in the trail, if you give one.")


class CompromisedForm(forms.Form):
    """A revocation, and from when on nothing may be believed."""

    reason = reason_field()
    compromised_since = MomentField(
        required=False,
        help_text="In UTC, where the key got into other hands: what was signed since then is"
        " marked, and counts no more.",
    )
