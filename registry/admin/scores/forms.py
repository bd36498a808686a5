"""The forms that close and annul violations and change the scoring profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from atp.judging.scoring import Profile
from registry.admin.fields import reason_field

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
    """The form that closes or annuls violations, with a reason."""

    reason = reason_field(help_text="Kept with the violation and in the trail.")


class ProfileForm(forms.Form):
    """All numbers of a scoring profile, one field each: `weights-identity`, `half_life_days`."""

    reason = reason_field(help_text="Kept with this version and in the trail.")
    version = forms.IntegerField(widget=forms.HiddenInput)

    field_order = ("version",)

    def __init__(self, data: Any, *, profile: Profile) -> None:
        super().__init__(data, initial={"version": profile.version})
        document = profile.to_dict()
        # The name of the field of each number, by table and by what it is the number of.
        self.names = {table: {key: f"{table}-{key}" for key in document[table]} for table in TABLES}
        for table, names in self.names.items():
            for key, name in names.items():
                self.fields[name] = _number(key, document[table][key])
        for name, label in NUMBERS.items():
            self.fields[name] = _number(label, document[name])

    def to_values(self) -> dict[str, Any]:
        """Return the members of a profile document; call it only after `is_valid`."""
        values: dict[str, Any] = {name: self.cleaned_data[name] for name in NUMBERS}
        for table, names in self.names.items():
            values[table] = {key: self.cleaned_data[name] for key, name in names.items()}
        return values

    def sections(self) -> Mapping[str, list[forms.BoundField]]:
        """Return the fields by heading, for the template."""
        tables = {
            heading: [self[name] for name in self.names[table].values()]
            for table, heading in TABLES.items()
        }
        return {**tables, "Ceilings and periods": [self[name] for name in NUMBERS]}


def _number(label: str, initial: int) -> forms.IntegerField:
    return forms.IntegerField(label=label, initial=initial, min_value=0)
