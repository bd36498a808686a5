"""Each filter finds exactly its entries; an unreadable filter is refused by name."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from atp.wire.canonical import serialize, sha256_b64url
from atp.wire.words import SENSITIVITIES
from registry.hub.secrets import blinded
from registry.trail.kinds import VERDICTS, Kind
from registry.trail.models import Entry, EntryBody
from registry.trail.reading.columns import FIELDS
from registry.trail.reading.filters import PARAMETERS
from tests.trail.readers import PROVENANCE, add, fresh, listed, note, problem

HEADER = {
    "actor": "actor",
    "subject": "subject",
    "sender": "sender",
    "recipient": "recipient",
    "messageId": "message_id",
    "session": "session",
    "attestation": "attestation",
    "trace": "trace",
    "requestId": "request_id",
    "onBehalfOf": "on_behalf_of",
    "policy": "policy",
    "rule": "rule",
    "issuer": "issuer",
}
BLINDED = {"requestId", "onBehalfOf"}


def indexes(rows: list[dict[str, Any]]) -> list[int]:
    return [row["index"] for row in rows]


@pytest.mark.parametrize("parameter", HEADER)
def test_it_filters_by_text_of_the_header(auditor: httpx.Client, parameter: str) -> None:
    ours, other = fresh("x"), fresh("y")
    index = add(note(**{HEADER[parameter]: ours}), note(**{HEADER[parameter]: other}))
    (row,) = listed(auditor, **{parameter: ours})
    assert row["index"] == index
    assert row[parameter] == (blinded(parameter, ours) if parameter in BLINDED else ours)
    both = listed(auditor, **{parameter: [ours, other, "none"]})
    assert indexes(both) == [index + 1, index]


@pytest.mark.parametrize(
    ("parameter", "value"), [("sensitivity", "restricted"), ("verdict", "denied")]
)
def test_it_filters_by_closed_words(auditor: httpx.Client, parameter: str, value: str) -> None:
    sender = fresh("alice")
    index = add(note(sender=sender, **{parameter: value}), note(sender=sender))
    assert indexes(listed(auditor, sender=sender, **{parameter: value})) == [index]


def test_it_filters_by_hub(auditor: httpx.Client) -> None:
    index = add(note())
    hub = Entry.objects.get(position=index).hub
    assert index in indexes(listed(auditor, hub=hub))
    assert listed(auditor, hub="hub-of-somebody-else") == []


def test_it_filters_by_kind_and_by_all_kinds_of_a_subject(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    kinds = [Kind.ENVELOPE_ACCEPTED, Kind.ENVELOPE_DENIED, Kind.SESSION_OPENED]
    first = add(*(note(kind=kind, sender=sender) for kind in kinds))
    assert indexes(listed(auditor, sender=sender, kind="envelope.denied")) == [first + 1]
    assert indexes(listed(auditor, sender=sender, kind="envelope.*")) == [first + 1, first]
    both = listed(auditor, sender=sender, kind=["session.opened", "envelope.accepted"])
    assert indexes(both) == [first + 2, first]


def test_it_filters_by_agent_in_any_part(auditor: httpx.Client) -> None:
    agent = fresh("alice")
    first = add(note(sender=agent), note(recipient=agent), note(subject=agent), note())
    assert indexes(listed(auditor, agent=agent, order="oldest")) == [first, first + 1, first + 2]


def test_it_filters_by_place(auditor: httpx.Client) -> None:
    first = add(*[note()] * 5)
    found = listed(auditor, indexFrom=first + 1, indexTo=first + 3)
    assert indexes(found) == [first + 3, first + 2, first + 1]


def test_it_filters_by_time_from_inclusive_to_exclusive(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    first = add(note(sender=sender))
    second = add(note(sender=sender))
    third = add(note(sender=sender))
    time = {row["index"]: row["time"] for row in listed(auditor, sender=sender)}
    assert time[first] < time[second] < time[third]
    found = listed(auditor, sender=sender, timeFrom=time[second], timeTo=time[third])
    assert indexes(found) == [second]


def test_it_filters_by_score_and_leaves_out_what_has_none(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    first = add(*(note(sender=sender, score=score) for score in (0, 69, 70, 84, 100, None)))
    assert indexes(listed(auditor, sender=sender, scoreFrom=70, scoreTo=84)) == [
        first + 3,
        first + 2,
    ]
    assert indexes(listed(auditor, sender=sender, scoreFrom=0)) == [
        first + i for i in (4, 3, 2, 1, 0)
    ]


def test_it_searches_the_reason_in_any_case_and_literally(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    first = add(
        note(sender=sender, shared={"code": "policy.denied", "detail": "Restricted after hours"}),
        note(sender=sender, shared={"reason": "100% of the keys_lost"}),
        note(sender=sender, shared={"elsewhere": "restricted"}),
    )
    assert indexes(listed(auditor, sender=sender, reason="restricted AFTER")) == [first]
    assert indexes(listed(auditor, sender=sender, reason="policy.denied")) == [first]
    assert indexes(listed(auditor, sender=sender, reason="0% of the keys_l")) == [first + 1]
    assert listed(auditor, sender=sender, reason="r%d") == []


def test_it_enters_of_long_filters_what_tells_which_they_were(auditor: httpx.Client) -> None:
    """A reader can't fill the trail, which nobody may delete, with what they look for."""
    senders = [f"{fresh('alice')}-{'x' * 100}" for _ in range(50)]
    fields = ",".join(["index"] * 5_000)
    index = add(note(sender=senders[3]))
    assert indexes(listed(auditor, sender=senders, fields=fields, verdict="denied")) == []
    assert indexes(listed(auditor, sender=senders)) == [index]

    later = Entry.objects.filter(kind=Kind.TRAIL_QUERIED, position__gt=index)
    entry = later.order_by("position")[0]
    content = EntryBody.objects.get(entry_id=entry.pk).content()
    assert len(content) < 1_000
    asked = json.loads(content)["asked"]
    written = serialize(senders)
    assert asked["verdict"] == ["denied"]
    assert asked["sender"] == {
        "head": senders[0][:100],
        "count": 50,
        "bytes": len(written),
        "digest": sha256_b64url(written),
    }
    assert (asked["fields"]["count"], asked["fields"]["bytes"]) == (1, len(fields) + 4)


def test_it_selects_members(auditor: httpx.Client) -> None:
    index = add(note(sender=fresh("alice"), shared={"kept": [1, {"é": None}]}))
    (row,) = listed(auditor, indexFrom=index, indexTo=index, fields="body,index,leaf")
    assert list(row) == ["index", "leaf", "body"]
    assert row["body"]["shared"]["kept"] == [1, {"é": None}]
    (row,) = listed(auditor, indexFrom=index, indexTo=index)
    assert list(row) == [name for name in FIELDS if name not in {"leaf", "sections", "body"}]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("sendr", "alice"),
        ("sender__startswith", "a"),
        ("sender", ""),
        ("sender", "x" * 201),
        ("sender", ["alice"] * 51),
        ("kind", "envelope"),
        ("kind", "envelope.acc*"),
        ("kind", "*"),
        ("indexFrom", "-1"),
        ("indexFrom", "1.0"),
        ("indexFrom", "\u0661"),
        ("indexTo", str(2**63)),
        ("indexTo", ["1", "2"]),
        ("timeFrom", "2026-03-01"),
        ("timeFrom", "2026-03-01T00:00:00"),
        ("timeTo", "2026-02-30T00:00:00Z"),
        ("timeTo", "0001-01-01T00:00:00+14:00"),
        ("scoreTo", "101"),
        ("sensitivity", "secret"),
        ("verdict", "rejected"),
        ("verdict", ["denied", "rejected"]),
        ("order", "index"),
        ("order", ["newest", "oldest"]),
        ("fields", "index,password"),
        ("fields", ""),
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "many"),
        ("cursor", "WzAsMF0:forged"),
        ("format", "csv"),
    ],
)
def test_rejects_what_it_can_not_read(auditor: httpx.Client, parameter: str, value: Any) -> None:
    errors = problem(auditor, **{parameter: value})
    assert list(errors) == [parameter]
    assert errors[parameter][0]


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [
        ("index", 5, 2),
        ("score", 80, 70),
        ("time", "2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z"),
    ],
)
def test_rejects_ranges_that_end_before_they_begin(
    auditor: httpx.Client, name: str, begin: Any, end: Any
) -> None:
    errors = problem(auditor, **{f"{name}From": begin, f"{name}To": end})
    assert errors == {f"{name}To": [f"must not be less than {name}From"]}
    assert listed(auditor, **{f"{name}From": begin, f"{name}To": begin}) is not None


@pytest.mark.parametrize(
    ("parameter", "words"), [("sensitivity", SENSITIVITIES), ("verdict", VERDICTS)]
)
def test_it_names_the_words_that_there_are(
    auditor: httpx.Client, parameter: str, words: tuple[str, ...]
) -> None:
    (text,) = problem(auditor, **{parameter: "nonsense"})[parameter]
    assert text == f"must be one of {', '.join(words)}"


def test_it_combines_filters_of_header_and_body(auditor: httpx.Client) -> None:
    sender, policy = fresh("alice"), fresh("policy")
    first = add(
        note(sender=sender, policy=policy, score=70, shared={"reason": "late"}),
        note(sender=sender, policy=policy, score=70, shared={"reason": "early"}),
        note(sender=sender, policy=policy, score=10, shared={"reason": "late"}),
        note(sender=fresh("bob"), policy=policy, score=70, shared={"reason": "late"}),
    )
    asked = {"policy": policy, "sender": sender, "scoreFrom": 50, "reason": "LATE"}
    assert indexes(listed(auditor, **asked)) == [first]
    assert indexes(listed(auditor, **asked, order="oldest", indexFrom=first + 1)) == []


def test_it_names_every_problem_at_once(auditor: httpx.Client) -> None:
    assert set(problem(auditor, sendr="a", scoreFrom="x", order="up")) == {
        "sendr",
        "scoreFrom",
        "order",
    }


def test_it_knows_a_filter_for_every_member_of_the_header(auditor: httpx.Client) -> None:
    other = {"v", "log", "leafHash", "leaf", "sections", "body"}
    header = [name for name in FIELDS if name not in other]
    names = " ".join(parameter.name for parameter in PARAMETERS)
    assert [name for name in header if name not in names] == []
    assert auditor.get(f"{PROVENANCE}0/", params={"sender": "x"}).status_code == 400
