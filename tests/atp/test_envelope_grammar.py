"""Which JSON is an envelope: members, types, values; refusals are typed and say where."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp.errors import ATPError, MalformedError, MalformedTooDeep, MalformedTooLarge
from atp.trust.envelope import envelope_from_value, parse_envelope, verify_envelope
from atp.wire.canonical import ENVELOPE_MAX_BYTES
from tests.atp.envelopes import ALICE, HUB, NOW, document, of_bytes, signed, to_bytes
from tests.atp.json_values import values

CONTENT = of_bytes(signed())


def _changed(path: str, value: Any) -> dict[str, Any]:
    """The envelope's content with the member at `path` set, or removed where `value` is `...`."""
    content = of_bytes(to_bytes(CONTENT))
    *parents, name = path.split("/")
    inner = content
    for parent in parents:
        inner = inner[parent]
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    return content


def _refusal(data: Any) -> str:
    with pytest.raises(ATPError) as caught:
        parse_envelope(data)
    return caught.value.code


REFUSED = [
    ("version", ..., "malformed.envelope"),
    ("version", "2.0.0", "malformed.envelope"),
    ("version", 1, "malformed.envelope"),
    ("messageId", ..., "malformed.envelope"),
    ("messageId", "0B9E2A52-8D9C-4B0E-9F68-2F2D8D4D9F11", "malformed.envelope"),
    ("messageId", "0b9e2a52-8d9c-4b0e-9f68-2f2d8d4d9f11\n", "malformed.envelope"),
    ("messageId", "x", "malformed.envelope"),
    ("agentIdentity", "alice", "malformed.envelope"),
    ("agentIdentity/id", ..., "malformed.envelope"),
    ("agentIdentity/id", "Alice", "malformed.envelope"),
    ("agentIdentity/id", "*", "malformed.envelope"),
    ("agentIdentity/id", "alice\n", "malformed.envelope"),
    ("agentIdentity/id", "al\0ice", "malformed.envelope"),
    ("agentIdentity/id", "a" * 129, "malformed.envelope"),
    ("agentIdentity/id", "alicé", "malformed.envelope"),
    ("agentIdentity/role", "admin", "malformed.envelope"),
    ("agentIdentity/publicKey", 5, "malformed.envelope"),
    ("agentIdentity/capabilities", "all", "malformed.envelope"),
    ("agentIdentity/capabilities", ["a\0"], "malformed.text"),
    ("agentIdentity/capabilities", ["a"] * 257, "malformed.envelope"),
    ("agentIdentity/attestation/level", "root", "malformed.envelope"),
    ("agentIdentity/attestation/issuedAt", "yesterday", "malformed.timestamp"),
    ("agentIdentity/attestation/by", "x", "malformed.envelope"),
    ("trustLevel", "root", "malformed.envelope"),
    ("trustLevel", ["certified"], "malformed.envelope"),
    ("trustScore", 101, "malformed.envelope"),
    ("trustScore", True, "malformed.envelope"),
    ("trustScore", 87.5, "malformed.envelope"),
    ("policyContext/spawnPermission", 1, "malformed.envelope"),
    ("policyContext/maxLifespanSeconds", 0, "malformed.envelope"),
    ("policyContext/maxLifespanSeconds", True, "malformed.envelope"),
    ("policyContext/dataSensitivity", "secret", "malformed.envelope"),
    ("policyContext/allowedTools", [1], "malformed.envelope"),
    ("policyContext/rule", "allow", "malformed.envelope"),
    ("timestamp", ..., "malformed.envelope"),
    ("timestamp", 1_800_000_000, "malformed.timestamp"),
    ("timestamp", "2027-01-15T08:00:00+00:00", "malformed.timestamp"),
    ("timestamp", "2027-02-30T08:00:00Z", "malformed.timestamp"),
    ("provenance", {}, "malformed.envelope"),
    ("provenance", [[]], "malformed.envelope"),
    ("provenance", [{"type": "a", "id": "b", "action": "c"}], "malformed.envelope"),
    ("provenance", ["a.b.c", CONTENT["provenance"][0]], "malformed.envelope"),
    ("provenance", [CONTENT["provenance"][0]] * 257, "malformed.envelope"),
    ("payload", [], "malformed.envelope"),
    ("payload/messageType", "order", "malformed.envelope"),
    ("payload/messageType", "broadcast", "malformed.envelope"),
    ("payload/targetAgent", "*", "malformed.envelope"),
    ("payload/targetAgent", ["bob", "carol"], "malformed.envelope"),
    ("payload/targetAgent", "bob*", "malformed.envelope"),
    ("payload/requestId", ..., "malformed.envelope"),
    ("payload/requestId", "", "malformed.envelope"),
    ("payload/requestId", "a b", "malformed.envelope"),
    ("payload/requestId", "a\0", "malformed.envelope"),
    ("payload/requestId", "x" * 129, "malformed.envelope"),
    ("payload/requiredCapabilities", ["a.*"], "malformed.envelope"),
    ("payload/requiredCapabilities", "a", "malformed.envelope"),
    ("payload/requiresTrust", "CERTIFIED", "malformed.envelope"),
    ("payload/salt", "short", "malformed.envelope"),
    ("payload/notify", "yes", "malformed.envelope"),
    ("payload/part", -1, "malformed.envelope"),
    ("payload/final", 0, "malformed.envelope"),
    ("payload/error", {"code": "handler.failed"}, "malformed.envelope"),  # of a request
    ("signature", 5, "malformed.envelope"),
    ("hub", "x", "malformed.envelope"),
]


@pytest.mark.parametrize(("path", "value", "code"), REFUSED)
def test_rejects_a_member_that_is_missing_unknown_or_wrong(
    path: str, value: Any, code: str
) -> None:
    assert _refusal(to_bytes(_changed(path, value))) == code


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("payload/priority", {"kept": True}),
        ("payload/data", None),
        ("payload/data", "text with \0 in it"),
        ("policyContext", ...),
        ("provenance", []),
        ("trustScore", 0),
        ("agentIdentity/publicKey", ""),
        ("agentIdentity/id", "a"),
        ("agentIdentity/id", "0a.b-c_d" * 16),
        ("timestamp", "2027-01-15T08:00:00.123456789Z"),
    ],
)
def test_it_reads_what_the_grammar_allows(path: str, value: Any) -> None:
    envelope = parse_envelope(to_bytes(_changed(path, value)))
    assert envelope_from_value({"ATP": envelope.document}) == envelope


FAILURE = {"code": "handler.failed", "detail": "the handler failed (KeyError)"}


@pytest.mark.parametrize("error", [FAILURE, {"code": "quota"}, {**FAILURE, "later": [1]}])
def test_it_reads_the_failure_that_a_response_reports(error: Any) -> None:
    assert parse_envelope(_response_with(error)).error == error


@pytest.mark.parametrize(
    "error",
    [
        None,
        "failed",
        0.02,
        {},
        {"code": "Handler failed"},
        {"code": "a" * 41},
        {"code": ".a"},
        {"code": "handler.failed", "detail": 5},
        {"code": "handler.failed", "detail": "x" * 2049},
    ],
)
def test_rejects_any_other_error_of_a_response(error: Any) -> None:
    assert _refusal(_response_with(error)) == "malformed.envelope"


def _response_with(error: Any) -> bytes:
    content = _changed("payload/error", error)
    content["payload"]["messageType"] = "response"
    return to_bytes(content)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"{}", "malformed.envelope"),
        (b"[]", "malformed.envelope"),
        (b'{"ATP":null}', "malformed.envelope"),
        (b'{"ATP":{}}', "malformed.envelope"),
        (b'{"atp":{}}', "malformed.envelope"),
        (b'{"ATP":{},"type":"x"}', "malformed.envelope"),
        (b'{"ATP":{},"ATP":{}}', "malformed.duplicate_member"),
        (b"", "malformed.json"),
    ],
)
def test_rejects_what_is_no_envelope(text: bytes, code: str) -> None:
    assert _refusal(text) == code


def test_rejects_a_member_named_twice_anywhere() -> None:
    text = to_bytes(CONTENT).decode("utf-8")
    for name in ("messageId", "payload", "task", "id"):
        twice = text.replace(f'"{name}":', f'"{name}": 1, "{name}":', 1)
        assert _refusal(twice) == "malformed.duplicate_member"


def test_rejects_too_many_bytes_and_levels() -> None:
    room = ENVELOPE_MAX_BYTES - len(signed(document(data="")))
    assert parse_envelope(signed(document(data="x" * room)))
    content = _changed("payload/data", "x" * ENVELOPE_MAX_BYTES)
    with pytest.raises(MalformedTooLarge):
        parse_envelope(to_bytes(content))
    with pytest.raises(MalformedTooLarge):
        envelope_from_value({"ATP": content})
    deep: Any = []
    for _ in range(29):
        deep = [deep]
    with pytest.raises(MalformedTooDeep):
        parse_envelope(to_bytes(_changed("payload/data", deep)))
    with pytest.raises(MalformedTooDeep):
        envelope_from_value({"ATP": _changed("payload/data", deep)})


def test_it_says_where_the_fault_is_without_repeating_all_of_it() -> None:
    with pytest.raises(MalformedError) as caught:
        parse_envelope(to_bytes(_changed("payload/requestId", "\x1b[31m" + "x" * 5000)))
    assert "payload.requestId" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


@given(values())
def test_it_signs_parses_and_verifies_whatever_data_it_carries(data: Any) -> None:
    raw = signed(document(data=data))
    verified = verify_envelope(parse_envelope(raw), ALICE.public, hub_id=HUB, now=NOW)
    assert verified.envelope.data == data
    assert verified.envelope.canonical == raw


@given(values())
def test_rejects_any_other_value_with_a_typed_error(value: Any) -> None:
    with pytest.raises(MalformedError):
        envelope_from_value(value)
    with pytest.raises(MalformedError):
        envelope_from_value({"ATP": value})


@given(st.sampled_from(sorted(CONTENT)), values(), st.data())
def test_it_answers_any_member_with_an_envelope_or_a_typed_error(
    name: str, value: Any, data: st.DataObject
) -> None:
    content = {**CONTENT, name: value}
    if isinstance(CONTENT[name], dict):
        inner = data.draw(st.sampled_from(sorted(CONTENT[name])))
        content[name] = {**CONTENT[name], inner: value}
    try:
        envelope = envelope_from_value({"ATP": content})
        verify_envelope(envelope, ALICE.public, hub_id=HUB, now=NOW)
    except ATPError:
        return
    assert name == "trustScore" or content == CONTENT or name == "provenance"


@given(st.data())
def test_rejects_or_reads_the_same_from_bytes_with_one_changed(data: st.DataObject) -> None:
    raw = bytearray(signed())
    place = data.draw(st.integers(0, len(raw) - 1))
    before = raw[place]
    raw[place] = data.draw(st.integers(0, 255))
    if raw[place] == before:
        return
    with pytest.raises(ATPError):
        verify_envelope(parse_envelope(bytes(raw)), ALICE.public, hub_id=HUB, now=NOW)
