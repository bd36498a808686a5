"""The hidden field of the officers' forms: what a form was made from, and that it works once.

Without it an old form undoes what another officer has decided since, and two presses of one button
do a thing twice.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from django import forms
from django.core import signing
from django.db import models
from django.http import HttpRequest

from registry.change import ChangedMeanwhile
from registry.officers.actions import FORM_LIFE, take_form
from registry.storage.row_values import values_of

FIELD = "made_from"
NONCE_BYTES = 16
SHOWN_CHARS = 80  # of a value in the message that tells what changed
_SALT = "atp officers' form"

Values = Mapping[str, str]


class FieldsChanged(ChangedMeanwhile):
    """Values differ from those that the form was made from; `by_field` has a sentence for each."""

    def __init__(self, by_field: Mapping[str, str]) -> None:
        self.by_field = by_field
        super().__init__(
            "Nothing is saved: another person changed this after you had opened the form. "
            + " ".join(by_field.values())
            + " What you typed is kept. Compare it, and send it again if it is still right."
        )


@dataclass(frozen=True, slots=True)
class MadeFrom:
    """What a form was made from: a number used once, and the values of the rows it is about."""

    nonce: str
    rows: Sequence[Values]

    def use_up(self) -> None:
        """Note that the form was sent. Call it inside a `registry_change` that moves the epoch.

        Raises `ChangedMeanwhile` if it was sent before.
        """
        if not take_form(self.nonce):
            raise ChangedMeanwhile(
                "This form was sent already, and it works once. Look at what it did; if you want"
                " it a second time, send the form as it stands here."
            )

    def check(self, about: Sequence[models.Model]) -> None:
        """Raise `FieldsChanged` if a row has other values than those the form was made from.

        Call it inside a change that moves the epoch: no other change of the rows can run then.
        """
        changed: dict[str, str] = {}
        for before, row in zip(self.rows, about, strict=True):
            now = type(row)._default_manager.get(pk=row.pk)
            changed |= dict(_differences(before, now))
        if changed:
            raise FieldsChanged(changed)


def sealed(request: HttpRequest, about: Sequence[models.Model]) -> str:
    """Return a new value of the hidden field for a form on this page about these rows."""
    content = {
        "nonce": secrets.token_urlsafe(NONCE_BYTES),
        "user": request.user.pk,
        "page": request.get_full_path(),
        "rows": [values_of(row) for row in about],
    }
    return signing.dumps(content, salt=_SALT, compress=True)


def opened(request: HttpRequest) -> MadeFrom:
    """Return what the posted form was made from.

    Raises `ChangedMeanwhile` if the hidden field is missing, too old, or of another page or person.
    """
    try:
        content = signing.loads(request.POST.get(FIELD, ""), salt=_SALT, max_age=FORM_LIFE)
    except signing.BadSignature:
        content = {}
    if (content.get("user"), content.get("page")) != (request.user.pk, request.get_full_path()):
        raise ChangedMeanwhile(
            "This form is more than a day old or incomplete. Nothing is saved; look at the page as"
            " it is now, and send the form again."
        )
    return MadeFrom(content["nonce"], content["rows"])


def add_changes(form: forms.Form, changes: FieldsChanged) -> None:
    """Show what changed above the form, and each change at its field, too."""
    form.add_error(None, str(changes))
    for name, sentence in changes.by_field.items():
        if name in form.fields:
            form.add_error(name, sentence)


def _differences(before: Values, row: models.Model) -> Iterator[tuple[str, str]]:
    for name, value in values_of(row).items():
        earlier = before.get(name, "")
        if value != earlier:
            was, now = (_shown(row, name, text) for text in (earlier, value))
            yield name, f"{name.replace('_', ' ').capitalize()} was {was} and is {now} now."


def _shown(row: models.Model, name: str, text: str) -> str:
    """Return a stored value in words; of a row that it refers to, its name."""
    value = json.loads(text) if text else None
    fields = {field.name: field for field in row._meta.concrete_fields}
    related = fields[name].related_model if name in fields else None
    if value is not None and isinstance(related, type):
        value = str(related._base_manager.filter(pk=value).first() or value)
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    words = "empty" if value in (None, "") else f"“{value}”"
    return words if len(words) <= SHOWN_CHARS else f"{words[:SHOWN_CHARS]}…”"
