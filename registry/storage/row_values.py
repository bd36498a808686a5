"""The values of a row as text, to tell whether it has changed since somebody saw it."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from django.db import models

STATE_HEX_CHARS = 16


def values_of(row: models.Model) -> dict[str, str]:
    """Return the stored values of a row as JSON, by the name of the field; no binary ones."""
    found = {
        field.name: _text(field.value_from_object(row))
        for field in row._meta.concrete_fields
        if not isinstance(field, models.BinaryField)
    }
    for relation in row._meta.many_to_many:
        found[relation.name] = _text(sorted(str(one) for one in relation.value_from_object(row)))
    versions = getattr(row, "versions", None)  # a policy: its rules are rows of their own
    if isinstance(versions, models.Manager):
        found["version"] = _text(versions.count())
    return found


def state_of(row: models.Model) -> str:
    """Return a short digest of the row's values."""
    return sha256(_text(values_of(row)).encode()).hexdigest()[:STATE_HEX_CHARS]


def _text(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
