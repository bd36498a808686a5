"""The forms that issue and upload attestations."""

from __future__ import annotations

import time
from typing import Any

from django import forms

from registry.admin.fields import LinesField, reason_field
from registry.agents.models import LEVEL_CHOICES
from registry.issuers.models import Issuer, IssuerKey
from registry.issuers.standing import issuer_standings

TOKEN_MAX_CHARS = 65_536
DEFAULT_DAYS = 90


class AttestForm(forms.Form):
    """The form that issues an attestation, by an issuer whose key this hub holds."""

    issuer = forms.ModelChoiceField(
        queryset=Issuer.objects.none(),
        empty_label=None,
        help_text="Issuers that may attest now and whose key this hub holds.",
    )
    level = forms.ChoiceField(choices=LEVEL_CHOICES, initial="verified")
    capabilities = LinesField(
        required=False,
        help_text="The capabilities that it vouches for, as exact names, one a line. One"
        " attestation must hold all capabilities that a request requires.",
    )
    days = forms.IntegerField(
        min_value=1, max_value=3660, initial=DEFAULT_DAYS, label="Valid for how many days"
    )
    reason = reason_field(required=False, help_text="Kept in the trail, if you give one.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["issuer"].queryset = attesting_issuers()  # type: ignore[attr-defined]  # a choice field


class UploadForm(forms.Form):
    """The form that uploads an attestation signed elsewhere."""

    token = forms.CharField(
        label="Signed trust mark",
        max_length=TOKEN_MAX_CHARS,
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "class": "token"}),
        help_text="The signed text, exactly as the issuer made it: three parts joined by dots.",
    )


def attesting_issuers() -> Any:
    """Return the issuers that may attest now and whose key this hub holds."""
    standings = issuer_standings(time.time())
    good = [pk for pk, standing in standings.items() if not standing.code]
    return Issuer.objects.filter(
        pk__in=good,
        keys__status=IssuerKey.Status.ACTIVE,
        keys__private_sealed__isnull=False,
    ).distinct()
