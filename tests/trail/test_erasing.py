"""Erasing: only with an entry of the same transaction, by retention, and never under a hold."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import Q

from registry.admin.trail.fit import erased, misfits
from registry.officers.actor import Actor
from registry.storage.bulk import insert_rows
from registry.trail import tasks
from registry.trail.actions import EntryDraft
from registry.trail.erasing import MOST_ERASED, Section, erase, erase_due, lift_hold, place_hold
from registry.trail.kinds import Kind
from registry.trail.losses import losses
from registry.trail.models import Entry, EntryBody, Erasure, LegalHold
from registry.trail.retention import RetentionRule, parse_retention
from registry.trail.triggers import make_triggers
from tests.registry.agent_cast import OFFICER
from tests.trail.readers import add, fresh
from tests.trail.unprotected import drop_triggers

pytestmark = pytest.mark.usefixtures("database")

LATER = timedelta(days=200)
ACME = "org_00000000000000aa"


def full(sender: str, **more: object) -> int:
    """The position of an entry with all four sections."""
    return add(
        EntryDraft(
            Kind.ENVELOPE_ACCEPTED,
            sender=sender,
            sensitivity="internal",
            shared={"reason": "all is well"},
            for_sender={"score": 81},
            for_recipient={"seq": 7},
            personal={"address": "192.0.2.7"},
            **more,  # type: ignore[arg-type]
        )
    )


def body(position: int) -> EntryBody:
    return EntryBody.objects.get(pk=position)


def entry(position: int) -> Entry:
    return Entry.objects.select_related("body").get(pk=position)


def change(position: int, assignment: str) -> None:
    """Change the body at this position by SQL."""
    sql = f"UPDATE registry_entrybody SET {assignment} WHERE position = %s"  # noqa: S608
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, [position])


def enter_erasure(position: int, entered: int) -> None:
    columns = ("position", "section", "entry", "reason")
    with transaction.atomic():
        insert_rows(Erasure, columns, [(position, "personal", entered, "privacy")])


class OfSender(RetentionRule):
    """A rule that covers only the entries of one test."""

    sender = ""

    @property
    def covers(self) -> Q:
        return super().covers & Q(sender=self.sender)


def own(sender: str, text: str = "envelope.*=183:contract") -> RetentionRule:
    """Return a rule of the settings that covers only this sender's entries."""
    (rule,) = parse_retention(text)
    of_sender: type[RetentionRule] = type("OfThisSender", (OfSender,), {"sender": sender})
    return of_sender(rule.kinds, rule.sensitivity, rule.sections, rule.period, rule.reason)


def test_it_erases_one_section_and_the_leaf_still_fits() -> None:
    position = full(fresh("alice"), organisations=(ACME,))
    erase([Section(position, "personal", (ACME,))], reason="privacy", actor=OFFICER)
    row = entry(position)
    assert (row.body.personal, row.body.reason) == (None, "all is well")
    assert row.body.read("sender")["score"] == 81
    assert (misfits(row), erased(row.body)) == ([], ["personal"])
    told = Entry.objects.filter(kind=Kind.RETENTION_ERASED).latest("position")
    assert (told.subject, told.organisations, told.actor) == ("privacy", [ACME], OFFICER.name)
    assert told.body.read()["erased"] == [[row.log, row.index, "personal"]]
    assert Erasure.objects.get(position=position).entry == told.position


def test_it_erases_the_reason_with_the_section_that_it_repeats() -> None:
    position = full(fresh("alice"))
    erase([Section(position, "shared", ())], reason="privacy", actor=OFFICER)
    assert (body(position).shared, body(position).reason) == (None, None)
    assert misfits(entry(position)) == []


def test_it_tells_each_organisation_only_of_its_own_entries() -> None:
    one, two = full(fresh("a"), organisations=(ACME,)), full(fresh("b"))
    before = Entry.objects.latest("position").position
    sections = [Section(one, "personal", (ACME,)), Section(two, "personal", ())]
    erase(sections, reason="privacy", actor=OFFICER)
    told = Entry.objects.filter(kind=Kind.RETENTION_ERASED, position__gt=before)
    assert {tuple(e.organisations): len(e.body.read()["erased"]) for e in told} == {
        (): 1,
        (ACME,): 1,
    }


@pytest.mark.parametrize("section", ["shared", "sender", "recipient", "personal"])
def test_rejects_erasing_without_an_erasure(section: str) -> None:
    position = full(fresh("alice"))
    with pytest.raises(IntegrityError, match="append-only"):
        change(position, f"{section} = NULL")
    assert getattr(body(position), section) is not None


@pytest.mark.parametrize("assignment", ["sender = NULL", "personal = digests", "digests = shared"])
def test_rejects_changing_more_than_what_was_erased(assignment: str) -> None:
    position = full(fresh("alice"))
    erase([Section(position, "personal", ())], reason="privacy", actor=OFFICER)
    with pytest.raises(IntegrityError, match="append-only"):
        change(position, assignment)


def test_rejects_an_erasure_without_its_entry() -> None:
    """Neither with another entry's position nor with that of an earlier erasure."""
    position, other = full(fresh("alice")), full(fresh("bob"))
    erase([Section(other, "personal", ())], reason="privacy", actor=OFFICER)
    earlier = Erasure.objects.get(position=other).entry
    newest = add(EntryDraft(Kind.ENVELOPE_ACCEPTED))
    for entered in (position, earlier, newest, newest + 1):
        with pytest.raises(IntegrityError, match="needs its own entry"):
            enter_erasure(position, entered)
    assert body(position).personal is not None


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no numbers of transactions")
def test_rejects_an_erasure_with_the_entry_of_an_earlier_transaction() -> None:
    position, other = full(fresh("alice")), full(fresh("bob"))
    erase([Section(other, "personal", ())], reason="privacy", actor=OFFICER)
    newest = Entry.objects.latest("position")
    assert newest.kind == Kind.RETENTION_ERASED
    with pytest.raises(IntegrityError, match="needs its own entry"):
        enter_erasure(position, newest.position)


def test_rejects_changing_an_erasure() -> None:
    position = full(fresh("alice"))
    erase([Section(position, "personal", ())], reason="privacy", actor=OFFICER)
    rows = Erasure._base_manager.db_manager("default").filter(position=position)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        rows._raw_delete("default")
    statement = "UPDATE registry_erasure SET reason = 'x' WHERE position = %s"
    with (
        pytest.raises(IntegrityError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement, [position])


def test_rejects_too_many_at_once() -> None:
    with pytest.raises(ValueError, match="128"):
        erase([Section(0, "shared", ())] * (MOST_ERASED + 1), reason="privacy", actor=OFFICER)


def test_it_raises_the_alarm_over_a_section_that_went_without_an_erasure() -> None:
    position, other = full(fresh("alice")), full(fresh("bob"))
    erase([Section(other, "recipient", ())], reason="privacy", actor=OFFICER)
    drop_triggers()
    try:
        change(position, "recipient = NULL")
        found = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
        assert [e.id for e in found if str(position) in e.msg] == ["atp.E011"]
        assert (position, "recipient") in losses(most=100)
        assert (other, "recipient") not in losses(most=100)
        assert misfits(entry(position)) == [
            "the section recipient is missing, and no erasure names it"
        ]
    finally:
        restore(position)
        make_triggers()


def restore(position: int) -> None:
    """Take the entry's missing section out of its digests, so that later checks find no loss."""
    row = entry(position)
    kept = bytes(row.body.digests).replace(b'"recipient"', b'"recipienx"')
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE registry_entrybody SET digests = %s WHERE position = %s", [kept, position]
        )


def test_it_erases_what_retention_no_longer_keeps_in_chunks() -> None:
    sender = fresh("alice")
    positions = [full(sender) for _ in range(40)]  # 160 sections: more than one chunk
    rule, now = own(sender), datetime.now(UTC)
    assert erase_due(rule, now) is None
    assert all(body(position).personal is not None for position in positions)
    after: int | None = -1
    chunks = 0
    while after is not None:
        after = erase_due(rule, now + LATER, after=after)
        chunks += 1
    assert chunks == 2
    for position in positions:
        row = entry(position)
        assert erased(row.body) == ["shared", "sender", "recipient", "personal"]
        assert misfits(row) == []


def test_it_erases_by_kind_sensitivity_and_section() -> None:
    sender = fresh("alice")
    secret, other = full(sender), full(sender)
    session = add(EntryDraft(Kind.SESSION_OPENED, sender=sender, personal={"address": "::1"}))
    now = datetime.now(UTC) + LATER
    erase_due(own(sender, "envelope.*/restricted=183:law"), now)
    erase_due(own(sender, "session.*#personal=30:privacy"), now)
    assert body(secret).shared is not None
    assert body(other).personal is not None
    assert body(session).personal is None
    assert body(session).shared is not None


def test_a_legal_hold_wins() -> None:
    held, free, ours = fresh("held"), fresh("free"), f"org_{secrets.token_hex(8)}"
    kept, of_ours = full(held), full(free, organisations=(ours,))
    gone = full(free)
    about = place_hold(agent=held, organisation="", reason="a court asked", actor=OFFICER)
    of = place_hold(agent="", organisation=ours, reason="a court asked", actor=OFFICER)
    now = datetime.now(UTC) + LATER
    for sender in (held, free):
        erase_due(own(sender), now)
    assert body(kept).shared is not None
    assert body(of_ours).shared is not None
    assert body(gone).shared is None
    for hold in (about, of):
        lift_hold(hold.pk, reason="the case is closed", actor=OFFICER)
    for sender in (held, free):
        erase_due(own(sender), now)
    assert body(kept).shared is None
    assert body(of_ours).shared is None
    kinds = ("retention.held", "retention.released")
    told = Entry.objects.filter(subject=held, kind__in=kinds).values_list("kind", flat=True)
    assert list(told) == ["retention.held", "retention.released"]


def test_a_hold_on_everything_keeps_everything() -> None:
    sender = fresh("alice")
    position = full(sender)
    call_command("legal_hold", "place", "--everything", "--reason", "a court asked")
    hold = LegalHold.objects.latest("pk")
    try:
        erase_due(own(sender), datetime.now(UTC) + LATER)
        assert body(position).shared is not None
    finally:
        call_command("legal_hold", "lift", str(hold.pk), "--reason", "closed")
    with pytest.raises(CommandError, match="in force"):
        call_command("legal_hold", "lift", str(hold.pk), "--reason", "again")


def test_the_task_keeps_everything_unless_told() -> None:
    position = full(fresh("alice"))
    tasks.erase_expired()
    assert body(position).shared is not None


@pytest.mark.parametrize(
    ("name", "days"), [("6-months", 183), ("6-years", 2192), ("10-years", 3653)]
)
def test_it_has_presets(name: str, days: int) -> None:
    (rule,) = parse_retention(name)
    assert (rule.period, rule.reason) == (timedelta(days=days), f"retention.{name}")
    assert Kind.ENVELOPE_ACCEPTED in rule.kinds
    assert not {Kind.LOG_STARTED, Kind.POLICY_CHANGED, Kind.KEY_REVOKED, Kind.RETENTION_ERASED} & {
        *rule.kinds
    }


@pytest.mark.parametrize(
    "text",
    [
        "2-weeks", "policy.*=30:law", "log.started=30:law", "envelope.*/secret=30:law",
        "envelope.*#body=30:law", "envelope.*=0:law", "envelope.*=-1:law", "envelope.*=30",
        "envelope.*=30:", "envelope.*=30:" + "x" * 41,
    ],
)  # fmt: skip
def test_rejects_rules_that_it_can_not_read(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="ATP_RETENTION"):
        parse_retention(text)


def test_it_names_the_hub_as_the_actor_of_what_retention_erases() -> None:
    sender = fresh("alice")
    full(sender)
    erase_due(own(sender), datetime.now(UTC) + LATER)
    told = Entry.objects.filter(kind=Kind.RETENTION_ERASED).latest("position")
    assert (told.actor, told.subject) == (Actor.hub().name, "contract")
