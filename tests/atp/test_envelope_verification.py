"""Verification refuses an envelope with another content, hub, recipient or time than signed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atp.errors import ATPError, SignatureMissing
from atp.trust import signing
from atp.trust.envelope import (
    VerifiedEnvelope,
    envelope_from_value,
    parse_envelope,
    sign_envelope,
    signature_header,
    signing_claims,
    verify_envelope,
    verify_signature,
)
from atp.trust.keys import ALGORITHMS, PrivateKey
from atp.trust.tokens import TokenKind
from atp.types import DataSensitivity, MessageType, TrustLevel
from atp.wire.canonical import parse_noted
from tests.atp.envelopes import (
    ALICE,
    DIGEST,
    ENTRY,
    HUB,
    NOW,
    document,
    of_bytes,
    one_change,
    signed,
    to_bytes,
)
from tests.atp.forging import forge

MALLORY = PrivateKey.generate()


def _verify(raw: bytes, **options: Any) -> VerifiedEnvelope:
    arguments = {"hub_id": HUB, "now": NOW, **options}
    return verify_envelope(parse_envelope(raw), arguments.pop("key", ALICE.public), **arguments)


def _refusal(raw: bytes, **options: Any) -> str:
    with pytest.raises(ATPError) as caught:
        _verify(raw, **options)
    return caught.value.code


def test_it_reads_what_was_signed() -> None:
    raw = signed(document(message_id="0b9e2a52-8d9c-4b0e-9f68-2f2d8d4d9f11"), cause=DIGEST)
    verified = _verify(raw)
    envelope = verified.envelope
    assert (verified.issued_at, verified.expires_at) == (1_800_000_000, 1_800_000_030)
    assert (verified.kid, verified.req, verified.cause) == (ALICE.kid, None, DIGEST)
    assert (envelope.sender, envelope.target) == ("alice", "bob")
    assert envelope.message_id == "0b9e2a52-8d9c-4b0e-9f68-2f2d8d4d9f11"
    assert envelope.message_type is MessageType.REQUEST
    assert envelope.timestamp == NOW
    assert envelope.sensitivity is DataSensitivity.CONFIDENTIAL
    assert envelope.required_capabilities == ("data.analysis",)
    assert envelope.requires_trust is TrustLevel.VERIFIED
    assert envelope.claimed_level is TrustLevel.CERTIFIED
    assert envelope.allowed_tools == ("search",)
    assert envelope.max_lifespan_seconds == 3600
    assert envelope.notify is True
    assert envelope.provenance[0] == ENTRY.to_wire()
    assert envelope.data["figures"] == [1, 2.5, None, True]
    assert envelope.request_id
    assert len(envelope.payload["salt"]) == 22


def test_it_reads_an_envelope_that_says_no_more_than_it_must() -> None:
    content = {
        "version": "1.0.0",
        "messageId": "0b9e2a52-8d9c-4b0e-9f68-2f2d8d4d9f11",
        "agentIdentity": {"id": "alice"},
        "payload": {"messageType": "broadcast", "targetAgent": "*"},
    }
    envelope = _verify(signed(content)).envelope
    assert envelope.target == "*"
    said_nothing: list[object] = [
        envelope.sensitivity,
        envelope.requires_trust,
        envelope.claimed_level,
    ]
    said_nothing += [envelope.request_id, envelope.max_lifespan_seconds, envelope.data]
    assert said_nothing == [None] * 6
    assert envelope.provenance == []
    assert envelope.notify is False


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_it_signs_with_every_algorithm(alg: str) -> None:
    key = PrivateKey.generate(alg)
    raw = signed(key=key)
    assert signature_header(parse_envelope(raw)) == signing.Header(alg, key.kid, "atp-msg+jwt")
    assert _verify(raw, key=key.public).kid == key.kid


def test_it_comes_to_the_same_envelope_however_it_was_written() -> None:
    raw = signed()
    spaced = json.dumps(json.loads(raw), indent=2, ensure_ascii=True).encode("ascii")
    parsed = parse_noted(raw)
    assert parse_envelope(spaced) == parse_envelope(raw)
    assert parse_envelope(spaced).canonical == raw
    assert envelope_from_value(parsed.value, plain=parsed.plain) == parse_envelope(raw)
    assert _verify(spaced).envelope.digest == _verify(raw).envelope.digest


def test_rejects_every_single_change_to_what_was_signed() -> None:
    content = of_bytes(signed())
    _verify(to_bytes(content))
    tried = 0
    for path, changed in one_change(content):
        if path[:1] == ("provenance",) and _only_adds_tokens(changed, content):
            continue  # what is added later is signed by itself
        assert _refusal(to_bytes(changed)).split(".")[0] in ("malformed", "signature", "clock"), (
            path
        )
        tried += 1
    assert tried > 500


def _only_adds_tokens(changed: Any, content: Any) -> bool:
    before, after = content["provenance"], changed.get("provenance")
    return (
        isinstance(after, list)
        and after[: len(before)] == before
        and all(isinstance(entry, str) for entry in after[len(before) :])
    )


def test_it_lets_the_informational_score_change() -> None:
    content = of_bytes(signed())
    assert _verify(to_bytes({**content, "trustScore": 87})).kid == ALICE.kid


def test_rejects_another_key_hub_and_time() -> None:
    raw = signed()
    assert _refusal(raw, key=MALLORY.public) == "signature.header"
    assert _refusal(raw, hub_id="hub-other") == "signature.audience"
    assert _refusal(raw, now=NOW - 61) == "clock.not_yet"
    assert _refusal(raw, now=1_800_000_030) == "clock.expired"
    assert _verify(raw, now=1_800_000_029.999).expires_at == 1_800_000_030


def test_it_judges_dates_only_where_a_time_is_given() -> None:
    """An auditor verifies years later and gives the time of acceptance."""
    verified = verify_signature(parse_envelope(signed()), ALICE.public, hub_id=HUB)
    assert verified.expires_at == 1_800_000_030


def _with_claims(changes: dict[str, Any], content: dict[str, Any] | None = None) -> bytes:
    """Alice's envelope, signed by alice over claims that differ from the right ones."""
    content = dict(content or of_bytes(signed()))
    content.pop("signature", None)
    envelope = parse_envelope(to_bytes(content))
    claims = signing_claims(envelope, hub_id=HUB, now=NOW, lifetime_seconds=30)
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not ...}
    header = {"alg": "EdDSA", "kid": ALICE.kid, "typ": "atp-msg+jwt"}
    return to_bytes({**content, "signature": forge(header, claims, ALICE)})


def test_it_takes_the_claims_that_all_changes_start_from() -> None:
    assert _verify(_with_claims({})).kid == ALICE.kid


CLAIMS = {
    "another sender": ({"iss": "mallory"}, "signature.claims"),
    "another message": ({"jti": "0b9e2a52-8d9c-4b0e-9f68-2f2d8d4d9f11"}, "signature.claims"),
    "the hub alone": ({"aud": HUB}, "signature.claims"),
    "the hub alone in a list": ({"aud": [HUB]}, "signature.audience"),
    "the recipient alone": ({"aud": ["bob"]}, "signature.audience"),
    "turned round": ({"aud": ["bob", HUB]}, "signature.audience"),
    "a third one": ({"aud": [HUB, "bob", "carol"]}, "signature.claims"),
    "everyone": ({"aud": [HUB, "*"]}, "signature.audience"),
    "another digest": ({"digest": DIGEST}, "signature.digest"),
    "a digest that is none": ({"digest": "x"}, "signature.claims"),
    "no provenance": ({"prov": ...}, "signature.provenance"),
    "fewer entries": ({"prov": {"n": 1, "head": DIGEST}}, "signature.provenance"),
    "another head": ({"prov": {"n": 2, "head": DIGEST}}, "signature.provenance"),
    "more in prov": ({"prov": {"n": 2, "head": DIGEST, "x": 1}}, "signature.claims"),
    "prov that is none": ({"prov": [2, DIGEST]}, "signature.claims"),
    "a request that answers": ({"req": DIGEST}, "signature.claims"),
    "a cause that is none": ({"cause": "x"}, "signature.claims"),
    "no jti": ({"jti": ...}, "signature.claims"),
    "an unknown claim": ({"scope": "all"}, "signature.claims"),
    "another time": ({"iat": 1_800_000_002, "exp": 1_800_000_030}, "clock.mismatch"),
    "longer than a day": ({"exp": 1_800_000_000 + 86_401}, "clock.too_long"),
    "an end before the start": ({"exp": 1_799_999_999}, "clock.expired"),
    "a fraction": ({"exp": 1_800_000_030.5}, "signature.claims"),
}


@pytest.mark.parametrize(("changes", "code"), CLAIMS.values(), ids=CLAIMS)
def test_rejects_claims_that_do_not_fit_the_envelope(changes: dict[str, Any], code: str) -> None:
    assert _refusal(_with_claims(changes)) == code


def test_it_lets_an_envelope_live_a_day() -> None:
    assert _verify(_with_claims({"exp": 1_800_000_000 + 86_400})).expires_at == 1_800_086_400


def test_it_binds_a_response_to_its_request() -> None:
    content = document(message_type=MessageType.RESPONSE, request_id="r-1")
    assert _verify(signed(content, req=DIGEST)).req == DIGEST
    with pytest.raises(ATPError) as caught:
        signed(content)
    assert caught.value.code == "signature.claims"


@pytest.mark.parametrize(
    "kind", [kind for kind in TokenKind if kind is not TokenKind.MESSAGE], ids=str
)
def test_rejects_a_token_of_another_kind_in_place_of_the_signature(kind: TokenKind) -> None:
    envelope = parse_envelope(signed())
    claims = signing_claims(envelope, hub_id=HUB, now=NOW, lifetime_seconds=30)
    token = signing.sign(claims, ALICE, typ=kind.typ)
    assert _refusal(to_bytes({**envelope.document, "signature": token})) == "signature.header"


@pytest.mark.parametrize("signature", [None, ""])
def test_rejects_an_unsigned_envelope(signature: str | None) -> None:
    content = of_bytes(signed())
    del content["signature"]
    if signature is not None:
        content["signature"] = signature
    assert _refusal(to_bytes(content)) == "signature.missing"
    with pytest.raises(SignatureMissing):
        signature_header(parse_envelope(to_bytes(content)))


def test_rejects_the_signature_of_another_envelope() -> None:
    content, other = of_bytes(signed()), of_bytes(signed())
    assert _refusal(to_bytes({**content, "signature": other["signature"]})) == "signature.claims"


REFUSED_TO_SIGN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an envelope for a year": ({}, {"lifetime_seconds": 365 * 86_400}, "clock.too_long"),
    "a sender that is none": ({"agentIdentity": {"id": "Alice"}}, {}, "malformed.envelope"),
    "an unknown member": ({"priority": 1}, {}, "malformed.envelope"),
    "a number nobody reads": ({"payload": {"data": 1e17}}, {}, "malformed.number"),
    "a number that is none": ({"payload": {"data": float("nan")}}, {}, "malformed.number"),
    "no JSON": ({"payload": {"data": object()}}, {}, "malformed.json"),
    "a lone surrogate": ({"payload": {"data": "\ud800"}}, {}, "malformed.text"),
    "half a mebibyte": ({"payload": {"data": "x" * 524_288}}, {}, "malformed.too_large"),
    "a cause that is none": ({}, {"cause": "x"}, "signature.claims"),
}


@pytest.mark.parametrize(
    ("changes", "options", "code"), REFUSED_TO_SIGN.values(), ids=REFUSED_TO_SIGN
)
def test_rejects_to_sign_what_a_reader_would_refuse(
    changes: dict[str, Any], options: dict[str, Any], code: str
) -> None:
    content = document()
    payload = {**content["payload"], **changes.get("payload", {})}
    with pytest.raises(ATPError) as caught:
        signed({**content, **changes, "payload": payload}, **options)
    assert caught.value.code == code


def test_rejects_to_sign_what_nests_too_deep() -> None:
    data: Any = 1
    for _ in range(29):
        data = [data]
    assert _verify(signed(document(data=data))).kid == ALICE.kid
    with pytest.raises(ATPError) as caught:
        signed(document(data=[data]))
    assert caught.value.code == "malformed.too_deep"


def test_it_leaves_the_document_as_it_was() -> None:
    content = document()
    before = json.dumps(content)
    first, second = signed(content), signed(content)
    assert json.dumps(content) == before
    assert of_bytes(first)["payload"]["salt"] != of_bytes(second)["payload"]["salt"]


def test_it_keeps_a_salt_that_is_there() -> None:
    content = document(payload={"salt": "s" * 22, "part": 3, "extra": {"kept": True}})
    payload = parse_envelope(sign_envelope(content, ALICE, hub_id=HUB, now=NOW, lifetime_seconds=1))
    assert payload.payload["salt"] == "s" * 22
    assert payload.payload["extra"] == {"kept": True}
