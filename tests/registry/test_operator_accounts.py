"""The operator's commands for accounts leave entries in the trail."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from registry.officers.actor import pseudonym
from registry.trail.models import Entry
from tests.registry.agent_cast import fresh

pytestmark = pytest.mark.usefixtures("database")
PASSWORD = "typed by the operator"


def _account(name: str) -> Any:
    return get_user_model()._default_manager.get(username=name)


def _entry(name: str) -> Entry:
    return Entry.objects.select_related("body").get(subject=pseudonym(_account(name).pk))


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answer the questions for a password with these texts, in order."""
    answers: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda prompt="": answers.pop(0))
    return answers


def test_it_enters_a_superuser_that_the_operator_makes(
    monkeypatch: pytest.MonkeyPatch, typed: list[str]
) -> None:
    by_hand, by_script = fresh("root"), fresh("root")
    typed += [PASSWORD, PASSWORD]
    call_command("createsuperuser", username=by_hand)
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    call_command("createsuperuser", username=by_script, interactive=False)
    for name in (by_hand, by_script):
        entry = _entry(name)
        assert (entry.kind, entry.actor) == ("officer.created", "operator")
        assert entry.body.read()["after"]["superuser"] is True
        assert _account(name).check_password(PASSWORD)


def test_it_enters_a_password_that_the_operator_sets(typed: list[str]) -> None:
    name = fresh("ann")
    get_user_model()._default_manager.create_user(name)
    typed += [PASSWORD, PASSWORD]
    call_command("changepassword", name)
    entry = _entry(name)
    assert (entry.kind, entry.actor) == ("officer.changed", "operator")
    assert PASSWORD.encode() not in entry.body.content()
    assert _account(name).check_password(PASSWORD)


@pytest.mark.parametrize("answers", [("one password x", "another password"), ("short", "short")])
def test_rejects_a_password_typed_twice_differently_or_too_short(
    typed: list[str], answers: tuple[str, str]
) -> None:
    name = fresh("ann")
    get_user_model()._default_manager.create_user(name)
    typed += answers
    with pytest.raises(CommandError):
        call_command("changepassword", name)
    assert not _account(name).has_usable_password()
    assert not Entry.objects.filter(subject=pseudonym(_account(name).pk)).exists()


def test_rejects_a_name_that_is_taken(typed: list[str]) -> None:
    name = fresh("ann")
    get_user_model()._default_manager.create_user(name)
    with pytest.raises(CommandError):
        call_command("createsuperuser", username=name, interactive=False)
