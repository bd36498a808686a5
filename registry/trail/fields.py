"""A column that holds a short list of words as one text."""

from __future__ import annotations

from typing import Any

from django.db import models


class WordsField(models.TextField[Any, Any]):
    """A list of words without spaces, stored as one text with spaces between them."""

    def from_db_value(self, value: str | None, *_: Any) -> list[str] | None:
        """Return the stored words."""
        return None if value is None else value.split()

    def get_prep_value(self, value: Any) -> Any:
        """Return the text to store; a text, as in a filter, stays as it is."""
        return " ".join(value) if isinstance(value, list | tuple) else super().get_prep_value(value)
