"""The provenance of a message: its entries, their hash chain, and the agents that signed them.

Entries written before the sender signs are plain objects. The signature covers them by the claim
`prov`: their number and the head of a hash chain. An agent that adds an entry later signs it as an
`atp-prov+jwt` token over the envelope's digest, the position, the hash so far and the entry. So an
entry can't be moved to another envelope or position, or name another agent
(docs/protocol.md#provenance).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from atp.errors import (
    ATPError,
    MalformedEnvelope,
    MalformedError,
    SignatureClaims,
    SignatureMissing,
    SignatureProvenance,
    excerpt,
)
from atp.trust import signing
from atp.trust.keys import PrivateKey, PublicKey
from atp.trust.tokens import TokenKind, check_claims, issue, verify
from atp.types import IProvenanceEntry
from atp.wire.canonical import b64url, serialize
from atp.wire.schema import Check, check_members, is_digest, is_label, is_positive, is_timestamp

__all__ = [
    "AddedEntry",
    "chain_head",
    "check_entries",
    "check_provenance_claim",
    "entry_kids",
    "provenance_claim",
    "sign_entry",
    "verify_entries",
]

ENTRIES_MAX = 256  # ours: entries of one message; bounds the work of a verifier
_START: Final = hashlib.sha256(b"atp-provenance-v1").digest()  # the hash before the first entry

ENTRY_MEMBERS: Final[Mapping[str, Check]] = {
    "type": is_label,
    "id": is_label,
    "timestamp": is_timestamp,
    "action": is_label,
}
_CLAIM_MEMBERS: Final[Mapping[str, Check]] = {"n": is_positive, "head": is_digest}

FindKey = Callable[[str], tuple[str, PublicKey]]


@dataclass(frozen=True, slots=True)
class AddedEntry:
    """A verified entry that an agent added after signing, with that agent and its key."""

    entry: IProvenanceEntry
    agent: str
    kid: str
    position: int
    issued_at: int


def check_entries(entries: object) -> bool:
    """Return `True` for a list of plain entries, then tokens; raises `MalformedEnvelope` else."""
    if not isinstance(entries, list) or len(entries) > ENTRIES_MAX:
        raise MalformedEnvelope(f"provenance must be a list of at most {ENTRIES_MAX} entries")
    plain = _plain_entries(entries)
    for position, entry in enumerate(plain):
        where = f"provenance[{position}]."
        check_members(entry, ENTRY_MEMBERS, {}, error=MalformedEnvelope, where=where)
    if not all(isinstance(token, str) for token in entries[len(plain) :]):
        raise MalformedEnvelope("in provenance, plain entries must come before tokens")
    return True


def chain_head(entries: Sequence[Mapping[str, Any] | str]) -> str:
    """Return the head of the hash chain over `entries`.

    Each step is SHA-256(previous hash || RFC 8785 form of the entry, or of the token's claims).
    """
    head = _START
    for entry in entries:
        head = _next(head, entry)
    return b64url(head)


def provenance_claim(entries: Sequence[Any]) -> dict[str, Any] | None:
    """Return the claim `prov` over the plain entries, or `None` if there are none."""
    plain = _plain_entries(entries)
    return {"n": len(plain), "head": chain_head(plain)} if plain else None


def check_provenance_claim(entries: Sequence[Any], claim: object) -> None:
    """Raise `SignatureProvenance` unless `claim` (`None` if absent) fits these entries."""
    expected = provenance_claim(entries)
    if claim is not None:
        check_members(claim, _CLAIM_MEMBERS, {}, error=SignatureClaims, where="prov.")
    if claim != expected:
        raise SignatureProvenance("the entries are not the ones that were signed")


def sign_entry(
    entry: IProvenanceEntry,
    key: PrivateKey,
    *,
    agent: str,
    digest: str,
    entries: Sequence[Mapping[str, Any] | str],
    now: int,
) -> str:
    """Return the token by which `agent` adds `entry` after the existing `entries`.

    `digest` is that of the envelope. Raises a `MalformedError` if an entry breaks the grammar.
    """
    content = entry.to_wire()
    check_members(content, ENTRY_MEMBERS, {}, error=MalformedEnvelope, where="entry.")
    claims = {
        "iss": agent,
        "digest": digest,
        "n": len(entries),
        "prev": chain_head(entries),
        "entry": content,
    }
    return issue(TokenKind.PROVENANCE, claims, key, now=now)


def verify_entries(
    entries: Sequence[Mapping[str, Any] | str], *, digest: str, find_key: FindKey, now: float
) -> tuple[AddedEntry, ...]:
    """Verify the entries added after signing and return them; plain entries are skipped.

    `find_key` returns the agent and the key of a `kid`, or raises. Raises `SignatureProvenance`,
    which names the first position that is not valid.
    """
    added = []
    head = _START
    for position, entry in enumerate(entries):
        if isinstance(entry, str):
            link = _Link(digest, position, b64url(head))
            added.append(_verify_entry(entry, link, find_key, now))
        elif added:
            raise SignatureProvenance(f"entry {position} is a plain entry after a token")
        head = _next(head, entry)
    return tuple(added)


def entry_kids(entries: Sequence[Mapping[str, Any] | str]) -> set[str]:
    """Return the key ids that added entries name, to load the keys before `verify_entries`."""
    kids = set()
    for entry in entries:
        if isinstance(entry, str):
            with suppress(ATPError):
                kids.add(signing.read_header(entry).kid)
    return kids


@dataclass(frozen=True, slots=True)
class _Link:
    digest: str
    position: int
    prev: str


def _verify_entry(token: str, link: _Link, find_key: FindKey, now: float) -> AddedEntry:
    try:
        agent, key = find_key(signing.read_header(token).kid)
        claims = verify(TokenKind.PROVENANCE, token, key, now=now, audience=None, issuer=agent)
        check_members(claims["entry"], ENTRY_MEMBERS, {}, error=MalformedEnvelope, where="entry.")
    except ATPError as exc:
        raise SignatureProvenance(f"entry {link.position}: {exc}") from exc
    if claims["digest"] != link.digest:
        raise SignatureProvenance(f"entry {link.position} was written for another envelope")
    if (claims["n"], claims["prev"]) != (link.position, link.prev):
        raise SignatureProvenance(f"entry {link.position} was written for another position")
    entry = IProvenanceEntry.from_wire(claims["entry"])
    return AddedEntry(entry, agent, key.kid, link.position, claims["iat"])


def _next(head: bytes, entry: Mapping[str, Any] | str) -> bytes:
    content = _unverified_claims(entry) if isinstance(entry, str) else dict(entry)
    return hashlib.sha256(head + serialize(content)).digest()


def _plain_entries(entries: Sequence[Any]) -> list[Any]:
    tokens_from = next((i for i, e in enumerate(entries) if isinstance(e, str)), len(entries))
    return list(entries[:tokens_from])


def _unverified_claims(token: str) -> dict[str, Any]:
    """Return a token's unverified claims, for hashing only."""
    try:
        claims = signing.unverified_claims(token)
        check_claims(TokenKind.PROVENANCE, claims)
    except (MalformedError, SignatureClaims, SignatureMissing) as exc:
        raise SignatureProvenance(f"{excerpt(token)} is not a provenance token") from exc
    return claims
