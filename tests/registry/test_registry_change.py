"""One change of the registry: its epoch, its rows and its entries, all or none."""

from __future__ import annotations

import pytest

from registry.agents.models import Tag
from registry.bootstrap import ensure_hub
from registry.change import registry_change
from registry.hub.models import Hub
from registry.officers.actor import Actor
from registry.trail.actions import MOST_ENTRIES, EntryDraft
from registry.trail.kinds import Kind
from registry.trail.models import Entry

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def hub() -> Hub:
    return ensure_hub()


def draft(subject: str) -> EntryDraft:
    return EntryDraft(Kind.TAG_CREATED, subject=subject)


def add_tag_and_fail() -> None:
    with registry_change(Actor.hub()) as change:
        Tag.objects.create(name="lost")
        change.enter(draft("lost"))
        raise LookupError


def subjects(since: int) -> list[str]:
    return list(
        Entry.objects.filter(position__gte=since)
        .order_by("position")
        .values_list("subject", flat=True)
    )


def test_it_moves_the_epoch_once_and_enters_more_than_one_hold_of_the_lock() -> None:
    epoch, count = Hub.objects.get().epoch, Entry.objects.count()
    with registry_change(Actor.hub()) as change:
        change.enter(*(draft(f"t{n}") for n in range(MOST_ENTRIES + 1)))
        assert Entry.objects.count() == count
    assert Hub.objects.get().epoch == epoch + 1
    assert subjects(count) == [f"t{n}" for n in range(MOST_ENTRIES + 1)]
    assert Entry.objects.get(position=count).actor == Actor.hub().name


def test_it_keeps_nothing_after_an_exception() -> None:
    epoch, count = Hub.objects.get().epoch, Entry.objects.count()
    with pytest.raises(LookupError):
        add_tag_and_fail()
    assert (Hub.objects.get().epoch, Entry.objects.count()) == (epoch, count)
    assert not Tag.objects.filter(name="lost").exists()


def test_it_appends_an_inner_change_with_the_outer_one() -> None:
    count = Entry.objects.count()
    noted: list[int] = []
    with registry_change(Actor.hub()) as outer:
        outer.enter(draft("first"))
        with registry_change(Actor.hub()) as inner:
            inner.enter_noted(draft("second"), noted.append)
        assert Entry.objects.count() == count
        outer.enter(draft("third"))
    assert subjects(count) == ["first", "second", "third"]
    assert noted == [count + 1]


def test_it_moves_no_epoch_behind_a_change_that_moves_none() -> None:
    with (
        pytest.raises(RuntimeError),
        registry_change(Actor.hub(), moves_epoch=False),
        registry_change(Actor.hub()),
    ):
        pass
