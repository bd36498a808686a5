"""The state that all tests of a run share, so that no test may change it."""

from __future__ import annotations

import locale
import os
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, fields
from typing import Any, Self

from celery import current_app
from django.conf import settings
from django.utils import timezone, translation

ABSENT = "(none)"
NOT_COMPARED = {"PYTEST_CURRENT_TEST", "PYTEST_VERSION"}  # pytest's own


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The shared state of this process at one time."""

    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    celery: Mapping[str, Any]
    process: Mapping[str, Any]

    @classmethod
    def now(cls) -> Self:
        return cls(_environment(), _settings(), _celery(), _process())

    def changes(self, later: Surroundings) -> list[str]:
        """Return a sentence for each name that differs `later`, without its value.

        Values may be secret.
        """
        return [
            f"{part.name}: {name} has changed"
            for part in fields(self)
            for name in _different(getattr(self, part.name), getattr(later, part.name))
        ]


def _different(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name, ABSENT) != after.get(name, ABSENT)]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in NOT_COMPARED}


def _settings() -> dict[str, Any]:
    """Copy one level deep, so that changes inside lists and mappings are noticed."""
    return {name: copy(getattr(settings, name)) for name in dir(settings) if name.isupper()}


def _celery() -> dict[str, Any]:
    """Return the Celery application of this thread, and its broker."""
    conf = current_app.conf
    names = ("broker_url", "task_always_eager", "task_serializer", "result_backend")
    return {
        "current_app": current_app.main,
        "tasks": sorted(current_app.tasks),
        **{name: conf[name] for name in names},
    }


def _process() -> dict[str, Any]:
    mask = os.umask(0o077)
    os.umask(mask)
    return {
        "working folder": os.getcwd(),
        "umask": mask,
        "locale": locale.setlocale(locale.LC_ALL),
        "time zone": time.tzname,
        "Django's language": translation.get_language(),
        "Django's time zone": timezone.get_current_timezone_name(),
    }
