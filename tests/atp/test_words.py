"""Levels and their order, the seed's value types, agent ids, timestamps, errors."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp import errors
from atp.errors import BY_CODE, ATPError, MalformedError, excerpt, from_code
from atp.types import (
    DataSensitivity,
    IAgentIdentity,
    IATPConfig,
    IAttestation,
    IPolicyContext,
    IProvenanceEntry,
    MessageType,
    TrustLevel,
    check_agent_id,
)
from atp.wire.timestamps import (
    format_microseconds,
    format_milliseconds,
    format_timestamp,
    parse_timestamp,
)


@pytest.mark.parametrize("kind", [TrustLevel, DataSensitivity])
def test_it_orders_levels_by_meaning_not_by_alphabet(kind: Any) -> None:
    for low, high in pairwise(kind):
        assert low < high
        assert high > low
        assert low <= low <= high >= low
        assert low.rank + 1 == high.rank
    assert TrustLevel.VERIFIED < TrustLevel.CERTIFIED
    assert max(TrustLevel) is TrustLevel.CERTIFIED
    assert max(DataSensitivity) is DataSensitivity.RESTRICTED


def test_rejects_an_order_between_a_level_and_a_text() -> None:
    """As plain strings "verified" would be above "certified"."""
    level: Any = TrustLevel.VERIFIED
    for other in ("certified", DataSensitivity.PUBLIC, None):
        with pytest.raises(TypeError):
            _ = level < other
    assert level == "verified"
    assert pickle.loads(pickle.dumps(level)) is level  # noqa: S301  # our own bytes


VALUES = [
    IAttestation("authority", TrustLevel.VERIFIED),
    IAttestation("authority", TrustLevel.VERIFIED, "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
    IAgentIdentity("alice"),
    IAgentIdentity("alice", "key", IAttestation("x", TrustLevel.SANDBOXED), ["a", "b"]),
    IPolicyContext(),
    IPolicyContext(["search"], DataSensitivity.RESTRICTED, False, 60),
    IProvenanceEntry("service", "s", "2025-01-01T00:00:00Z", "did"),
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_it_reads_back_what_it_put_on_the_wire(value: Any) -> None:
    wire = value.to_wire()
    assert type(value).from_wire(wire) == value
    assert not any("_" in name for name in wire)


@pytest.mark.parametrize(
    ("kind", "wire"),
    [
        (IAttestation, {"issuer": "x"}),
        (IAttestation, {"issuer": "x", "level": "root"}),
        (IAgentIdentity, {"id": 5}),
        (IAgentIdentity, {"id": "a", "attestation": "x"}),
        (IAgentIdentity, {"id": "a", "capabilities": "x"}),
        (IPolicyContext, {"maxLifespanSeconds": True}),
        (IPolicyContext, {"dataSensitivity": 1}),
        (IProvenanceEntry, {"type": "a", "id": "b", "action": "c"}),
    ],
)
def test_rejects_a_wire_value_of_another_shape(kind: Any, wire: Any) -> None:
    with pytest.raises(MalformedError):
        kind.from_wire(wire)


def test_it_shows_no_private_key_in_a_configuration() -> None:
    shown = repr(IATPConfig(IAgentIdentity("alice"), TrustLevel.VERIFIED, private_key="hush"))
    assert "hush" not in shown


def test_it_writes_types_as_their_words() -> None:
    assert f"{MessageType.REQUEST} {TrustLevel.VERIFIED}" == "request verified"


@pytest.mark.parametrize("text", ["a", "0", "a.b_c-d", "a" * 128])
def test_it_takes_agent_ids(text: str) -> None:
    assert check_agent_id(text) == text


@pytest.mark.parametrize(
    "text", ["", "*", "-a", ".a", "A", "a b", "a/b", "a\n", "é", "a" * 129, 5, None]
)
def test_rejects_what_is_no_agent_id(text: object) -> None:
    with pytest.raises(ATPError) as caught:
        check_agent_id(text)
    assert caught.value.code == "identity.invalid_id"


@given(st.integers(0, 253_402_300_799_999))
def test_it_reads_back_the_times_that_it_wrote(milliseconds: int) -> None:
    assert round(parse_timestamp(format_timestamp(milliseconds / 1000)) * 1000) == milliseconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2027-01-15T08:00:00Z", 1_800_000_000),
        ("2027-01-15T08:00:00.5Z", 1_800_000_000.5),
        ("2024-02-29T00:00:00.000000001Z", 1_709_164_800),
    ],
)
def test_it_reads_times(text: str, seconds: float) -> None:
    assert parse_timestamp(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "2027-01-15 08:00:00Z",
        "2027-01-15T08:00:00",
        "2027-01-15T08:00:00z",
        "2027-01-15t08:00:00Z",
        "2027-01-15T08:00:00+00:00",
        "2027-01-15T08:00:00.Z",
        "2027-01-15T08:00:00.1234567890Z",
        "2027-01-15T08:00Z",
        "2027-01-15T24:00:00Z",
        "2027-01-15T23:59:60Z",
        "2027-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2027-W03-5T08:00:00Z",
        "20270115T080000Z",
        "\uff12\uff10\uff12\uff17-01-15T08:00:00Z",
        "2027-01-15T08:00:00Z\n",
        "",
        None,
        0,
    ],
)
def test_rejects_what_is_no_time(text: object) -> None:
    with pytest.raises(ATPError) as caught:
        parse_timestamp(text)
    assert caught.value.code == "malformed.timestamp"


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_it_has_one_class_for_each_code(code: str) -> None:
    error = from_code(code, "what happened", retry_after=2)
    assert type(error) is BY_CODE[code]
    assert type(error).__name__ in errors.__all__
    assert str(error) == f"{code}: what happened"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert (type(again), again.code, again.detail, again.retry_after) == (
        type(error),
        code,
        "what happened",
        2,
    )


def test_it_carries_a_code_that_it_does_not_know() -> None:
    error = from_code("future.code", "new")
    assert type(error) is ATPError
    assert (error.code, str(error)) == ("future.code", "future.code: new")
    assert ATPError.code == "atp.error"


def test_it_shows_untrusted_input_short_and_harmless() -> None:
    assert excerpt("a\n\x1b[31m\u202e") == r"'a\n\x1b[31m\u202e'"
    assert len(excerpt("x" * 10_000)) <= 60
    assert excerpt(10**10_000) == "a huge integer"
    assert excerpt({"secret": "value"}) == "'dict'"


def test_it_writes_a_moment_at_each_precision():
    east = datetime(2026, 1, 31, 1, 0, 0, 1_999, tzinfo=timezone(timedelta(hours=2)))
    assert format_milliseconds(east) == "2026-01-30T23:00:00.001Z"
    assert format_microseconds(east) == "2026-01-30T23:00:00.001999Z"
    assert format_microseconds(east.replace(microsecond=0)) == "2026-01-30T23:00:00.000000Z"
