"""Asks before an organisation or an issuer gets a name that looks like another one's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django import forms

from registry.agents.models import Organisation
from registry.issuers.models import Issuer
from registry.plain_text import canonical, skeleton

CONFIRMED = "different"


class NameForm(forms.Form):
    """A form with a name that people and rules tell from other names.

    If the name looks like one that exists, the form is not valid until the officer has ticked that
    it is meant. A name that does not change is not asked about.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if CONFIRMED in self.data:
            self.fields[CONFIRMED] = _confirmation()

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        confirmed = values.pop(CONFIRMED, False)
        name = canonical(values.get("name", ""))
        if name == self.initial.get("name") or confirmed:
            return values
        if others := sorted(_look_alikes(name)):
            self.fields[CONFIRMED] = _confirmation()
            names = " and ".join(f"“{other}”" for other in others)
            self.add_error(
                "name",
                f"This name looks like {names}, which is another one. Choose another name, or tick"
                " below that you mean this one.",
            )
        return values


def _confirmation() -> forms.BooleanField:
    return forms.BooleanField(
        required=False, label="It is meant to be another one, with a name that looks alike"
    )


def _look_alikes(name: str) -> Iterator[str]:
    """Yield the names of organisations and issuers that differ from this one and look like it."""
    look = skeleton(name)
    for model in (Organisation, Issuer):
        for other in model._default_manager.values_list("name", flat=True):
            if look and other != name and skeleton(other) == look:
                yield other
