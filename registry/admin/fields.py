"""Form fields and forms that several officers' pages share."""

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
EFFECT = "What it does now"  # the label of the numbers on a page that takes trust away


class LinesField(forms.CharField):
    """A list of names, one a line or separated by commas, semicolons or blanks."""

    def __init__(self, *, rows: int = 4, **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.Textarea(attrs={"rows": rows, "spellcheck": "false"}))
        super().__init__(max_length=LINES_MAX_CHARS, **kwargs)

    def to_python(self, value: Any) -> Any:
        """Return the names in the text."""
        text = super().to_python(value)
        return [part for part in SEPARATORS.split(text or "") if part]

    def prepare_value(self, value: Any) -> Any:
        """Return the names as text, one a line."""
        return value if isinstance(value, str) else "\n".join(self._texts(value))

    def validate(self, value: Any) -> None:
        """Raise `ValidationError` if a required list is empty."""
        if self.required and not value:
            raise forms.ValidationError(self.error_messages["required"], code="required")

    def run_validators(self, value: Any) -> None:
        """Check the length of the whole text; the list itself has no validators."""
        super().run_validators("\n".join(self._texts(value)))

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the names differ; separators do not count."""
        return bool(list(self._texts(initial)) != self.to_python(data))

    @staticmethod
    def _texts(value: Iterable[str] | None) -> Iterable[str]:
        return value or ()


class MomentField(forms.DateTimeField):
    """A date and time in UTC, entered with the browser's own picker."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault(
            "widget", forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
        )
        super().__init__(**kwargs)

    def to_python(self, value: Any) -> Any:
        """Return the time in UTC, or `None` if the field is empty."""
        moment = super().to_python(value)
        return moment if moment is None else moment.astimezone(UTC)


def add_refusal(form: forms.Form, refusal: ATPError) -> None:
    """Show why an action refused, at the field that the error names, or above the form."""
    field = getattr(refusal, "field", "").replace(".", "-")  # a member of a table
    form.add_error(field if field in form.fields else None, refusal.detail or refusal.code)


def reason_field(*, required: bool = True, help_text: str = "Kept in the trail.") -> Any:
    """Return a field for the reason of a decision, of at most `REASON_MAX_CHARS`."""
    return forms.CharField(
        label="Why",
        max_length=REASON_MAX_CHARS,
        required=required,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=help_text,
        error_messages={"required": "Say why: it is kept in the trail."},
    )


class ReasonForm(forms.Form):
    """The form of decisions that need only a reason."""

    reason = reason_field()


class OptionalReasonForm(forms.Form):
    """The form of decisions for which a reason is optional."""

    reason = reason_field(required=False, help_text="Kept in the trail, if you give one.")


class CompromisedForm(forms.Form):
    """The form of a revocation, with the time since when the key may be compromised."""

    reason = reason_field()
    compromised_since = MomentField(
        required=False,
        help_text="In UTC. Fill it in if another person may have the key: what was signed since"
        " then is marked and no longer counts.",
    )
