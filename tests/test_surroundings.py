"""Each test leaves what others share as it found it; the fixture of conftest.py looks after it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from celery import Celery
from celery._state import get_current_app
from django.conf import settings
from django.utils import translation

from tests.surroundings import Surroundings


def test_it_notices_a_variable_a_folder_and_a_language(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = Surroundings.now()
    monkeypatch.setenv("ATP_LEFT_BEHIND", "s3cret")
    monkeypatch.chdir(tmp_path)
    with translation.override("tr"):
        assert before.changes(Surroundings.now()) == [
            "environment: ATP_LEFT_BEHIND has changed",
            "process: Django's language has changed",
            "process: working folder has changed",
        ]
    monkeypatch.undo()
    assert before.changes(Surroundings.now()) == []


def test_it_notices_a_setting_that_is_written_into(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Surroundings.now()
    monkeypatch.setitem(settings.CELERY_BEAT_SCHEDULE, "left-behind", {})
    assert before.changes(Surroundings.now()) == ["settings: CELERY_BEAT_SCHEDULE has changed"]


def test_it_notices_an_application_of_celery_that_takes_over() -> None:
    """As `Celery(broker=...)` does by default, for every task that is sent afterwards."""
    before, hubs = Surroundings.now(), get_current_app()
    try:
        with Celery("other", broker="redis://127.0.0.1:1/0"):
            told = before.changes(Surroundings.now())
    finally:
        hubs.set_current()
    assert {"celery: broker_url has changed", "celery: current_app has changed"} <= set(told)
    assert before.changes(Surroundings.now()) == []


def test_it_tells_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Surroundings.now()
    monkeypatch.setenv("ATP_SECRET_KEY", "s3cret")
    assert "s3cret" not in str(before.changes(Surroundings.now()))
    assert os.environ["ATP_SECRET_KEY"] == "s3cret"
