"""Appending: indexes without a gap, times in order, and bytes that can be computed again."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atp.log import leaves
from atp.wire.canonical import digest, parse, serialize
from registry.hub.actions import bump_epoch
from registry.hub.models import Hub
from registry.storage.bulk import insert_rows
from registry.trail.actions import MOST_ENTRIES, EntryDraft, EpochMoved, append
from registry.trail.kinds import Kind
from registry.trail.models import Entry, Log

pytestmark = pytest.mark.usefixtures("database")


@contextmanager
def undone() -> Iterator[None]:
    """A transaction that is rolled back at its end."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def drafts(n: int, *, sender: str = "alice") -> list[EntryDraft]:
    return [
        EntryDraft(Kind.ENVELOPE_ACCEPTED, sender=sender, score=i % 101, shared={"n": i})
        for i in range(n)
    ]


def add(*entries: EntryDraft, expected_epoch: int | None = None) -> int:
    with transaction.atomic():
        return append(entries, expected_epoch=expected_epoch)


def leaf_again(entry: Entry) -> bytes:
    """The leaf as an auditor computes it, from the columns and the sections."""
    log = Log.objects.get()
    members: dict[str, Any] = {
        "v": 1,
        "log": log.origin,
        "index": entry.position - log.first_position,
        "time": entry.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "hub": entry.hub,
        "kind": entry.kind,
        "actor": entry.actor,
        "subject": entry.subject,
        "cause": entry.cause,
        "sender": entry.sender,
        "recipient": entry.recipient,
        "messageId": entry.message_id,
        "session": entry.session,
        "sensitivity": entry.sensitivity,
        "verdict": entry.verdict,
        "policy": entry.policy,
        "rule": entry.rule,
        "issuer": entry.issuer,
        "attestation": entry.attestation,
        "score": entry.score,
        "trace": entry.trace,
        "requestId": entry.request_id,
        "onBehalfOf": entry.on_behalf_of,
        "senderOrganisation": entry.sender_organisation,
        "recipientOrganisation": entry.recipient_organisation,
        "organisations": entry.organisations,
    }
    said = {name: value for name, value in members.items() if value not in ("", None, [])}
    digests = {name: digest(parse(content)) for name, content in sections_of(entry).items()}
    assert bytes(entry.body.digests) == serialize(digests)
    return serialize({**said, "body": digest(digests)})


def sections_of(entry: Entry) -> dict[str, bytes]:
    found = {name: getattr(entry.body, name) for name in leaves.SECTIONS}
    return {name: bytes(content) for name, content in found.items() if content is not None}


def without_salt(content: bytes) -> dict[str, Any]:
    members = parse(content)
    assert len(members.pop("salt")) == 32
    return dict(members)


def test_it_gives_each_entry_the_next_place() -> None:
    with transaction.atomic():  # the hub of this run appends, too, but not while we hold the lock
        first = append(drafts(3))
        second = append(drafts(2))
    assert second == first + 3
    rows = Entry.objects.filter(position__gte=first, position__lt=first + 5)
    assert [row.index for row in rows] == list(range(first, first + 5))
    assert [row.score for row in rows] == [0, 1, 2, 0, 1]


def test_it_leaves_no_gap_after_a_rollback() -> None:
    first = add(*drafts(1))
    with undone():
        append(drafts(3))
    last = add(*drafts(1))
    assert Entry.objects.filter(position__range=(first, last)).count() == last - first + 1


def test_it_never_goes_back_in_time() -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    with undone():
        ahead = append(drafts(1)) + 1
        names = [field.attname for field in Entry._meta.fields]
        empty = {name: None if name in {"cause", "score"} else "" for name in names}
        said = {"position": ahead, "time": later, "hub": "hub", "kind": Kind.LOG_STARTED.value}
        columns = {**empty, **said, "leaf": b"", "leaf_hash": b""}
        row = tuple(columns.values())
        insert_rows(Entry, tuple(columns), [row])
        assert Entry.objects.get(position=append(drafts(1))).time == later


def test_it_keeps_the_whole_trail_contiguous_and_in_order_of_time() -> None:
    add(*drafts(5))
    rows = list(Entry.objects.order_by("position").values_list("position", "time"))
    assert [index for index, _ in rows] == list(range(len(rows)))
    assert [time for _, time in rows] == sorted(time for _, time in rows)


def test_it_serves_many_writers_without_gap_or_deadlock() -> None:
    name = f"writer-{secrets.token_hex(4)}"
    firsts: list[int] = []

    def write() -> None:
        firsts.extend(add(*drafts(7, sender=name)) for _ in range(6))
        connections.close_all()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    places = list(Entry.objects.filter(sender=name).values_list("position", flat=True))
    assert sorted(firsts) == places[::7]
    assert places == [first + i for first in sorted(firsts) for i in range(7)]


def test_it_writes_nothing_when_the_registry_moved() -> None:
    epoch = Hub.objects.get().epoch
    before = add(*drafts(1), expected_epoch=epoch)
    with transaction.atomic():
        bump_epoch()
    with pytest.raises(EpochMoved):
        add(*drafts(2), expected_epoch=epoch)
    assert add(*drafts(1), expected_epoch=epoch + 1) == before + 1


def test_it_takes_nothing_but_looks_at_the_epoch_where_there_is_nothing_to_append() -> None:
    before = add(*drafts(1))
    assert add() == before + 1
    with pytest.raises(EpochMoved):
        add(expected_epoch=Hub.objects.get().epoch + 1)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite waits for the disk anyway")
def test_what_has_an_entry_waits_for_the_disk_whatever_its_session_has() -> None:
    """A connection pooler that is changed under a running hub may give another session."""
    with undone(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
        append(drafts(1))
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == ("on",)


def test_rejects_an_append_outside_a_transaction() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        append(drafts(1))


def test_rejects_more_than_one_hold_may_take() -> None:
    with pytest.raises(ValueError, match="at most 256"):
        add(*drafts(MOST_ENTRIES + 1))


@pytest.mark.parametrize(
    "draft",
    [
        EntryDraft(Kind.AGENT_CREATED, subject="x" * 201),
        EntryDraft(Kind.AGENT_CREATED, message_id="x" * 37),
        EntryDraft(Kind.AGENT_CREATED, shared={"salt": "chosen by the caller"}),
    ],
)
def test_rejects_what_it_could_not_keep_as_it_is(draft: EntryDraft) -> None:
    with pytest.raises(ValueError, match=r"agent\.created"):
        add(draft)


def test_it_salts_bodies_so_that_equal_ones_look_different() -> None:
    first = add(EntryDraft(Kind.AGENT_CREATED), EntryDraft(Kind.AGENT_CREATED))
    one, two = Entry.objects.filter(position__gte=first, position__lt=first + 2)
    assert parse(one.body.content())["salt"] != parse(two.body.content())["salt"]
    assert parse(bytes(one.leaf))["body"] != parse(bytes(two.leaf))["body"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"reason": "left the company"}, "left the company"),
        ({"code": "trust.score", "detail": "62 is below 70"}, "trust.score: 62 is below 70"),
        ({"code": "clock.expired"}, "clock.expired"),
        ({"reason": "é" * 500}, "é" * 400),
        ({"reason": {"not": "words"}}, ""),
        ({}, ""),
    ],
)
def test_it_repeats_the_reason_in_words(body: dict[str, Any], reason: str) -> None:
    index = add(EntryDraft(Kind.AGENT_CHANGED, shared=body))
    assert Entry.objects.get(position=index).body.reason == reason


def readable(number: float) -> bool:
    """Whether our own parser would have let it in: integers beyond 2^53 - 1 it refuses."""
    return not number.is_integer() or not 2**53 <= abs(number) < 1e21


# A database holds no NUL in text; whatever else JSON can say may stand in an entry.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(readable)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(texts.filter(lambda name: name != "salt"), values, max_size=5)
organisations = st.lists(st.text("0123456789abcdef", min_size=16, max_size=16), max_size=4)
any_draft = st.builds(
    EntryDraft,
    kind=st.sampled_from(Kind),
    actor=texts,
    subject=texts,
    cause=st.none() | st.integers(0, 2**53 - 1),
    request_id=texts,
    on_behalf_of=texts,
    verdict=st.sampled_from(["", "accepted", "denied"]),
    rule=texts,
    score=st.none() | st.integers(0, 100),
    organisations=organisations.map(lambda uids: [f"org_{uid}" for uid in uids]),
    shared=bodies,
    for_sender=bodies,
    for_recipient=bodies,
    personal=bodies,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(any_draft, min_size=1, max_size=4))
def test_it_stores_bytes_that_can_be_computed_again(entries: list[EntryDraft]) -> None:
    with undone():
        first = append(entries)
        rows = list(Entry.objects.filter(position__gte=first).select_related("body"))
        for row, draft in zip(rows, entries, strict=True):
            assert bytes(row.leaf) == leaf_again(row)
            assert bytes(row.leaf_hash) == sha256(b"\0" + bytes(row.leaf)).digest()
            contents = sections_of(row)
            for content in contents.values():
                assert content == serialize(parse(content))
            expected = {
                "shared": {**draft.shared, **texts_of_references(draft)},
                "sender": draft.for_sender,
                "recipient": draft.for_recipient,
                "personal": draft.personal,
            }
            told = {name: without_salt(content) for name, content in contents.items()}
            assert told == {n: v for n, v in expected.items() if v or n == "shared"}


def texts_of_references(draft: EntryDraft) -> dict[str, str]:
    said = {"requestId": draft.request_id, "onBehalfOf": draft.on_behalf_of}
    return {name: text for name, text in said.items() if text}


def test_it_blinds_what_an_agent_chose() -> None:
    """A header is never erased, so who reads only headers learns no text of an agent."""
    one = EntryDraft(Kind.ENVELOPE_ACCEPTED, request_id="mr-smith", on_behalf_of="mr-smith")
    first = add(one, one)
    rows = list(Entry.objects.filter(position__gte=first, position__lt=first + 2))
    assert rows[0].request_id == rows[1].request_id != rows[0].on_behalf_of
    assert len(rows[0].request_id) == len(rows[0].on_behalf_of) == 22
    assert b"mr-smith" not in bytes(rows[0].leaf)
    assert b"mr-smith" in rows[0].body.content()


def test_it_gives_up_when_the_log_stays_locked(settings: Any) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite's one writer is waited for by its own time-out")
    settings.ATP_TRAIL_LOCK_SECONDS = 0.2
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            append(drafts(1))
            locked.set()
            done.wait(20)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(20)
    with pytest.raises(OperationalError):
        add(*drafts(1))
    done.set()
    holder.join(20)
    add(*drafts(1))
