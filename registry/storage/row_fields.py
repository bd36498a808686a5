"""The fields of a row, checked as the model declares them."""

from __future__ import annotations

from collections.abc import Collection

from django.core.exceptions import ValidationError
from django.db import models

from atp.errors import MalformedDocument


def check_fields(row: models.Model, *, exclude: Collection[str] = (), unique: bool = False) -> None:
    """Check all fields but `exclude`, and with `unique` that no other row has their values.

    Raises `MalformedDocument` that names the first bad one.
    """
    try:
        row.clean_fields(exclude=exclude)
        if unique:
            row.validate_unique()
    except ValidationError as exc:
        name, problems = next(iter(exc.message_dict.items()))
        raise MalformedDocument(f"{name.replace('_', ' ')}: {problems[0]}", field=name) from exc
