"""The forms of issuers: what they may attest, and their keys."""

from __future__ import annotations

import json
from typing import Any

from django import forms

from atp.errors import ATPError
from atp.wire.canonical import parse
from registry.admin.fields import LinesField, MomentField, reason_field
from registry.agents.models import LEVEL_CHOICES
from registry.issuers.actions import VALIDITY_MAX_DAYS, Limits
from registry.issuers.models import Issuer

JWK_MAX_CHARS = 8192


class JwkField(forms.CharField):
    """A public key, pasted as its owner gave it; empty means none."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 4, "spellcheck": "false"})
        super().__init__(max_length=JWK_MAX_CHARS, required=False, widget=widget, **kwargs)

    def to_python(self, value: Any) -> Any:
        text = (super().to_python(value) or "").strip()
        if not text:
            return None
        try:
            jwk = parse(text)
        except ATPError as exc:
            raise forms.ValidationError(f"This is no JWK: {exc.detail}") from exc
        if not isinstance(jwk, dict):
            raise forms.ValidationError("This is no JWK: it is no object.")
        return jwk

    def prepare_value(self, value: Any) -> Any:
        return json.dumps(value, indent=1) if isinstance(value, dict) else value


class LimitsForm(forms.Form):
    """What an issuer may attest."""

    highest_level = forms.ChoiceField(
        choices=LEVEL_CHOICES, initial="verified", help_text="The highest level that it may attest."
    )
    capability_patterns = LinesField(
        required=False,
        help_text="What it may vouch for, one a line: exact names, finance.* for all below finance,"
        " * for everything. Nothing here means that it may vouch for no capability.",
    )
    longest_validity_days = forms.IntegerField(
        min_value=1,
        max_value=VALIDITY_MAX_DAYS,
        initial=365,
        help_text="The longest that one of its attestations may be good for.",
    )
    not_before = MomentField(required=False, help_text="In UTC; empty: from now on.")
    not_after = MomentField(required=False, help_text="In UTC; empty: without an end.")

    def limits(self) -> Limits:
        """What a valid form says."""
        values = self.cleaned_data
        return Limits(
            highest_level=values["highest_level"],
            capability_patterns=tuple(values["capability_patterns"]),
            longest_validity_days=values["longest_validity_days"],
            not_before=values["not_before"],
            not_after=values["not_after"],
        )


class NewIssuerForm(LimitsForm):
    name = forms.CharField(max_length=120)
    slug = forms.SlugField(
        max_length=60, help_text="Lower case; names it in its URL and can't be changed later."
    )
    parent = forms.ModelChoiceField(
        queryset=Issuer.objects.filter(status=Issuer.Status.ACTIVE),
        required=False,
        empty_label="none: it is a trust anchor",
        help_text="The issuer that accredits it. It may do no more than its parent.",
    )
    public_jwk = JwkField(
        label="Public key",
        help_text="Where the issuer signs elsewhere: its public key as a JWK. Empty: the hub makes"
        " a key and holds it encrypted, so that you can attest here.",
    )
    field_order = ("name", "slug", "parent")


class ChangeIssuerForm(LimitsForm):
    reason = reason_field()

    @classmethod
    def initial_of(cls, issuer: Issuer) -> dict[str, Any]:
        """The form as the issuer stands."""
        names = (
            "highest_level",
            "capability_patterns",
            "longest_validity_days",
            "not_before",
            "not_after",
        )
        return {name: getattr(issuer, name) for name in names}


class IssuerKeyForm(forms.Form):
    public_jwk = JwkField(
        label="Public key",
        help_text="Where the issuer signs elsewhere. Empty: the hub makes a key and holds it.",
    )
    reason = reason_field()
