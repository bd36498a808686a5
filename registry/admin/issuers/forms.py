"""The forms of issuers: their limits and their keys."""

from __future__ import annotations

import json
from typing import Any

from django import forms

from atp.errors import ATPError
from atp.wire.canonical import parse
from registry import impact
from registry.admin.fields import EFFECT, LinesField, MomentField, reason_field
from registry.admin.look_alikes import NameForm
from registry.agents.models import LEVEL_CHOICES
from registry.issuers.actions import VALIDITY_MAX_DAYS, Limits
from registry.issuers.models import Issuer

JWK_MAX_CHARS = 8192
MEANT = "meant"


class JwkField(forms.CharField):
    """A public key, pasted as a JWK; an empty text means `None`."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 4, "spellcheck": "false"})
        super().__init__(max_length=JWK_MAX_CHARS, required=False, widget=widget, **kwargs)

    def to_python(self, value: Any) -> Any:
        """Return the JWK as an object, or `None` if the field is empty."""
        text = (super().to_python(value) or "").strip()
        if not text:
            return None
        try:
            jwk = parse(text)
        except ATPError as exc:
            raise forms.ValidationError(f"This is not a JWK: {exc.detail}") from exc
        if not isinstance(jwk, dict):
            raise forms.ValidationError("This is not a JWK: it is not a JSON object.")
        return jwk

    def prepare_value(self, value: Any) -> Any:
        """Return the JWK as indented JSON."""
        return json.dumps(value, indent=1) if isinstance(value, dict) else value


class LimitsForm(forms.Form):
    """The limits of an issuer: what it may attest, and when."""

    highest_level = forms.ChoiceField(
        choices=LEVEL_CHOICES, initial="verified", help_text="The highest level that it may attest."
    )
    capability_patterns = LinesField(
        required=False,
        help_text="The capabilities that it may vouch for, one a line: exact names, finance.* for"
        " all below finance, * for all. If you leave this empty, it may vouch for no capability.",
    )
    longest_validity_days = forms.IntegerField(
        min_value=1,
        max_value=VALIDITY_MAX_DAYS,
        initial=365,
        help_text="The longest validity that one of its attestations may have.",
    )
    not_before = MomentField(required=False, help_text="In UTC. Empty means from now on.")
    not_after = MomentField(required=False, help_text="In UTC. Empty means without an end.")

    def limits(self) -> Limits:
        """Return the limits; call it only on a valid form."""
        values = self.cleaned_data
        return Limits(
            highest_level=values["highest_level"],
            capability_patterns=tuple(values["capability_patterns"]),
            longest_validity_days=values["longest_validity_days"],
            not_before=values["not_before"],
            not_after=values["not_after"],
        )


class NewIssuerForm(NameForm, LimitsForm):
    """The form that adds an issuer."""

    name = forms.CharField(max_length=120)
    slug = forms.SlugField(
        max_length=60,
        help_text="In lower case. It is part of the issuer's URL and can't be changed later.",
    )
    parent = forms.ModelChoiceField(
        queryset=Issuer.objects.filter(status=Issuer.Status.ACTIVE),
        required=False,
        empty_label="none: it is a trust anchor",
        help_text="The issuer that accredits it. It may never do more than its parent.",
    )
    public_jwk = JwkField(
        label="Public key",
        help_text="If the issuer signs elsewhere, paste its public key as a JWK. If you leave this"
        " empty, the hub makes a key and holds it encrypted, so you can attest here.",
    )
    field_order = ("name", "slug", "parent")


class ChangeIssuerForm(LimitsForm):
    """The form that changes an issuer's limits.

    If attestations or issuers below stop counting by it, it says how many, and is not valid until
    the officer has ticked that it is meant.
    """

    reason = reason_field()

    def __init__(self, *args: Any, issuer: Issuer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.issuer = issuer
        if MEANT in self.data:
            self.fields[MEANT] = _meant()

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        meant = values.pop(MEANT, False)
        if self.errors or meant:
            return values
        if loss := impact.of_limits(self.issuer, self.limits()):
            self.fields[MEANT] = _meant()
            self.add_error(None, f"{EFFECT}: {loss} If that is meant, tick it below.")
        return values

    @classmethod
    def initial_of(cls, issuer: Issuer) -> dict[str, Any]:
        """Return the issuer's present limits for the form."""
        names = (
            "highest_level",
            "capability_patterns",
            "longest_validity_days",
            "not_before",
            "not_after",
        )
        return {name: getattr(issuer, name) for name in names}


def _meant() -> forms.BooleanField:
    return forms.BooleanField(required=False, label="It is meant that these stop counting")


class IssuerKeyForm(forms.Form):
    """The form that gives an issuer a new key."""

    public_jwk = JwkField(
        label="Public key",
        help_text="If the issuer signs elsewhere, paste its public key as a JWK. If you leave this"
        " empty, the hub makes a key and holds it.",
    )
    reason = reason_field()
