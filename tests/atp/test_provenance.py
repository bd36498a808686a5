"""Provenance entries: those that were signed with the envelope, and those added on its way."""

from __future__ import annotations

from typing import Any

import pytest

from atp.errors import (
    ATPError,
    KeyUnknown,
    MalformedEnvelope,
    SignatureClaims,
    SignatureProvenance,
)
from atp.trust.envelope import parse_envelope, verify_envelope
from atp.trust.keys import PrivateKey, PublicKey
from atp.trust.provenance import (
    chain_head,
    check_provenance_claim,
    provenance_claim,
    sign_entry,
    verify_entries,
)
from atp.trust.tokens import TokenKind, issue
from atp.types import IProvenanceEntry
from tests.atp.envelopes import ALICE, ENTRY, HUB, NOW, of_bytes, signed, to_bytes

BOB, CAROL, MALLORY = (PrivateKey.generate() for _ in range(3))
KEYS = {BOB.kid: ("bob", BOB.public), CAROL.kid: ("carol", CAROL.public)}
ENVELOPE = parse_envelope(signed())
SIGNED = ENVELOPE.provenance


def _find_key(kid: str) -> tuple[str, PublicKey]:
    if kid not in KEYS:
        raise KeyUnknown(kid)
    return KEYS[kid]


def _added(
    entries: list[Any], *, by: str = "bob", key: PrivateKey = BOB, digest: str = ENVELOPE.digest
) -> list[Any]:
    entry = IProvenanceEntry("service", f"{by}-service", "2027-01-15T08:00:01Z", "passed on")
    token = sign_entry(entry, key, agent=by, digest=digest, entries=entries, now=int(NOW))
    return [*entries, token]


BY_BOB = _added(SIGNED)
BY_BOTH = _added(BY_BOB, by="carol", key=CAROL)


def _verify(entries: list[Any], digest: str = ENVELOPE.digest) -> list[tuple[int, str]]:
    found = verify_entries(entries, digest=digest, find_key=_find_key, now=NOW)
    return [(entry.position, entry.agent) for entry in found]


def test_it_names_who_added_what() -> None:
    assert _verify(BY_BOTH) == [(2, "bob"), (3, "carol")]
    (bobs,) = verify_entries(BY_BOB, digest=ENVELOPE.digest, find_key=_find_key, now=NOW)
    assert bobs.entry == IProvenanceEntry(
        "service", "bob-service", "2027-01-15T08:00:01Z", "passed on"
    )
    assert (bobs.kid, bobs.issued_at) == (BOB.kid, int(NOW))


def test_it_leaves_the_senders_signature_whole() -> None:
    raw = to_bytes({**of_bytes(signed()), "provenance": SIGNED})
    content = of_bytes(raw)
    digest = parse_envelope(raw).digest
    content["provenance"] = _added(SIGNED, digest=digest)
    envelope = parse_envelope(to_bytes(content))
    assert envelope.digest == digest
    assert verify_envelope(envelope, ALICE.public, hub_id=HUB, now=NOW).kid == ALICE.kid
    assert _verify(envelope.provenance, digest) == [(2, "bob")]


def test_it_takes_an_entry_where_there_was_none() -> None:
    assert _verify(_added([])) == [(0, "bob")]


@pytest.mark.parametrize(
    "entries",
    [
        [*SIGNED, BY_BOTH[3], BY_BOTH[2]],
        [*SIGNED, BY_BOTH[3]],
        [*SIGNED, BY_BOTH[2], BY_BOTH[2]],
        [SIGNED[0], BY_BOTH[2]],
        [*SIGNED[::-1], BY_BOTH[2]],
        [*SIGNED, ENTRY.to_wire(), BY_BOTH[2]],
        [*BY_BOB, ENTRY.to_wire()],
        [*SIGNED, "a.b.c"],
        [*SIGNED, ""],
        [*SIGNED, BY_BOTH[2][:-4] + "AAAA"],
        _added(SIGNED, key=MALLORY),
        _added(SIGNED, by="carol", key=BOB),
        _added(SIGNED, digest="A" * 43),
    ],
    ids=[
        "reordered",
        "dropped",
        "repeated",
        "less before it",
        "changed before it",
        "more before it",
        "unsigned after it",
        "garbage",
        "empty",
        "another signature",
        "an unknown key",
        "in another's name",
        "from another envelope",
    ],
)
def test_rejects_an_entry_out_of_its_place(entries: list[Any]) -> None:
    with pytest.raises(SignatureProvenance):
        _verify(entries)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 3},
        {"prev": "A" * 43},
        {"entry": {**ENTRY.to_wire(), "by": "x"}},
        {"entry": {"type": "a", "id": "b", "action": "c"}},
        {"entry": {**ENTRY.to_wire(), "timestamp": "now"}},
        {"iss": "carol"},
        {"iat": int(NOW) + 100},
    ],
    ids=str,
)
def test_rejects_a_signed_entry_that_says_something_else(change: dict[str, Any]) -> None:
    claims = {"iss": "bob", "digest": ENVELOPE.digest, "n": 2, "prev": chain_head(SIGNED)}
    right = {**claims, "entry": ENTRY.to_wire()}
    assert _verify([*SIGNED, issue(TokenKind.PROVENANCE, right, BOB, now=int(NOW))]) == [(2, "bob")]
    with pytest.raises(SignatureProvenance):
        _verify([*SIGNED, issue(TokenKind.PROVENANCE, {**right, **change}, BOB, now=int(NOW))])


@pytest.mark.parametrize(
    "entry",
    [
        IProvenanceEntry("", "id", "2027-01-15T08:00:00Z", "action"),
        IProvenanceEntry("type", "i\0d", "2027-01-15T08:00:00Z", "action"),
        IProvenanceEntry("type", "id", "yesterday", "action"),
        IProvenanceEntry("type", "id", "2027-01-15T08:00:00Z", "two\nlines"),
    ],
)
def test_rejects_to_sign_an_entry_that_nobody_would_read(entry: IProvenanceEntry) -> None:
    with pytest.raises(ATPError):
        sign_entry(entry, BOB, agent="bob", digest=ENVELOPE.digest, entries=SIGNED, now=int(NOW))


def test_it_claims_nothing_where_there_is_nothing() -> None:
    assert provenance_claim([]) is None
    check_provenance_claim([], None)
    with pytest.raises(SignatureProvenance):
        check_provenance_claim([], {"n": 1, "head": chain_head([])})
    with pytest.raises(SignatureClaims):
        check_provenance_claim([], {"n": 0, "head": chain_head([])})


def test_it_chains_entries_in_their_order() -> None:
    first, second = SIGNED
    heads = {chain_head(part) for part in ([], [first], [second], [first, second], [second, first])}
    assert len(heads) == 5


def test_rejects_entries_that_are_neither_objects_nor_tokens() -> None:
    for entries in ([5], [None], [["a"]], [*BY_BOB, 5]):
        with pytest.raises(MalformedEnvelope):
            parse_envelope(to_bytes({**ENVELOPE.document, "provenance": entries}))
