"""The forms that close violations and change the scoring profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from atp.errors import MalformedDocument
from atp.judging.scoring import Profile
from registry.officers.reason import REASON_MAX_CHARS

TABLES = {
    "weights": "Points that a component can earn; together 100",
    "level_points": "Points for identity, by level",
    "level_ceilings": "The highest score, by level",
    "violation_percent": "Share of the compliance points that a new violation costs, in percent",
    "key_percent": "Share of the cryptography points that a key earns, in percent",
}
NUMBERS = {
    "critical_ceiling": "The highest score while a critical violation is open",
    "high_ceiling": "The highest score after a high violation",
    "high_ceiling_days": "Days for which a high violation limits the score",
    "demo_ceiling": "The highest score of a demo key",
    "half_life_days": "Days after which a violation weighs half",
    "validity_days": "Longest validity of an attestation that counts for freshness, in days",
    "fresh_percent": "Share of the validity that must be left for full freshness, in percent",
    "good_envelopes": "Good envelopes that earn all points for compliance",
}


class CloseForm(forms.Form):
    """The form that closes violations, with a reason."""

    reason = forms.CharField(
        label="Why",
        max_length=REASON_MAX_CHARS,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Kept with the violation and in the trail.",
    )


class ProfileForm(CloseForm):
    """All numbers of a scoring profile, one field each: `weights-identity`, `half_life_days`."""

    version = forms.IntegerField(widget=forms.HiddenInput)

    field_order = ("version",)

    def __init__(self, data: Any, *, profile: Profile) -> None:
        super().__init__(data, initial={"version": profile.version})
        document = profile.to_dict()
        for table in TABLES:
            for key, value in document[table].items():
                self.fields[f"{table}-{key}"] = _number(key, value)
        for name, label in NUMBERS.items():
            self.fields[name] = _number(label, document[name])
        self.fields["reason"].help_text = "Kept with this version and in the trail."

    def to_values(self) -> dict[str, Any]:
        """Return the members of a profile document; call it only after `is_valid`."""
        values: dict[str, Any] = {name: self.cleaned_data[name] for name in NUMBERS}
        for table in TABLES:
            values[table] = {
                name.partition("-")[2]: value
                for name, value in self.cleaned_data.items()
                if name.startswith(f"{table}-")
            }
        return values

    def add_problem(self, problem: MalformedDocument) -> None:
        """Show the error at the field that it names, or at the top of the form."""
        name = problem.field.replace(".", "-")
        self.add_error(name if name in self.fields else None, problem.detail)

    def sections(self) -> Mapping[str, list[forms.BoundField]]:
        """Return the fields by heading, for the template."""
        tables = {
            heading: [self[name] for name in self.fields if name.startswith(f"{table}-")]
            for table, heading in TABLES.items()
        }
        return {**tables, "Ceilings and periods": [self[name] for name in NUMBERS]}


def _number(label: str, initial: int) -> forms.IntegerField:
    return forms.IntegerField(label=label, initial=initial, min_value=0)
