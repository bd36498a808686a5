"""The cast of the tests: agents with real keys and attestations, and the envelopes they write.

The actions of the registry make each agent, under a random name, because the database of a run is
shared and never rolled back. Alice and Bob are honest; Mallory is a valid agent too.
"""

from __future__ import annotations

import copy
import json
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atp.trust import tokens
from atp.trust.envelope import Envelope, new_document, parse_envelope, sign_envelope, signing_claims
from atp.trust.keys import PrivateKey, PublicKey
from atp.types import DataSensitivity, IAgentIdentity, IPolicyContext, MessageType
from atp.wire.canonical import sha256_b64url
from atp.wire.timestamps import format_timestamp
from registry.agents.actions import (
    approve_key,
    create_organisation,
    enrol_key,
    issue_enrolment_token,
    register_agent,
)
from registry.attestations.actions import issue_attestation
from registry.hub.actions import hub_id, session_key
from registry.models import Agent, Attestation, Issuer, Organisation
from registry.officers.actor import Actor
from tests.atp.forging import forge

OFFICER = Actor(name="officer:000000000000")
CAPABILITIES = ("finance.read", "finance.write")
LIFETIME_SECONDS = 60
VALID_DAYS = 300
OWN = "the sender's own"  # stands for the key of the sender

Change = Callable[[dict[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Player:
    """An agent of the cast, with its key and its hub."""

    id: str
    key: PrivateKey
    hub: str
    hub_key: PublicKey
    organisation: Organisation
    attestation: Attestation | None = None

    @property
    def identity(self) -> IAgentIdentity:
        return IAgentIdentity(id=self.id)


@dataclass(frozen=True, slots=True)
class Letter:
    """A signed envelope as text, with the values that receipts and deliveries name."""

    text: str
    message_id: str
    digest: str

    @property
    def envelope(self) -> Envelope:
        return parse_envelope(self.text)


# --- Make agents ---------------------------------------------------------------------------------


def make_organisation() -> Organisation:
    """Return a new organisation without other members."""
    return create_organisation(f"Organisation {secrets.token_hex(6)}", actor=OFFICER)


def make_agent(
    level: str | None = "certified",
    *,
    name: str = "agent",
    organisation: Organisation | None = None,
    approved: bool = True,
    capabilities: tuple[str, ...] = CAPABILITIES,
    algorithm: str = "EdDSA",
    **registration: Any,
) -> Player:
    """Return an enrolled agent, attested at `level` if its key is approved; `None`: not attested.

    `registration` goes to `register_agent`: tags, floors, minimum level and score, parent.
    """
    organisation = organisation or make_organisation()
    row = register_agent(
        f"{name}-{secrets.token_hex(6)}",
        organisation=organisation,
        owner_name="Olive Owner",
        declared_capabilities=capabilities,
        actor=OFFICER,
        **registration,
    )
    key = enrol(row.id, PrivateKey.generate(algorithm))
    attestation = None
    if approved:
        approve_key(key.kid, actor=OFFICER)
        if level is not None:
            attestation = attest(row.id, level, capabilities=capabilities)
    return Player(row.id, key, hub_id(), session_key().public, organisation, attestation)


def enrol(agent_id: str, key: PrivateKey) -> PrivateKey:
    """Enrol `key` with a one-time token, as the agent does. The key then waits for approval."""
    now = int(time.time())
    token = issue_enrolment_token(agent_id, actor=OFFICER).text
    claims = {
        "iss": agent_id,
        "aud": hub_id(),
        "tth": sha256_b64url(token.encode()),
        "jkt": key.kid,
        "exp": now + 60,
    }
    proof = tokens.issue(tokens.TokenKind.ENROL, claims, key, now=now)
    enrol_key(token=token, proof=proof, jwk=key.public.jwk, now=now)
    return key


def attest(
    agent_id: str,
    level: str,
    *,
    capabilities: tuple[str, ...] = CAPABILITIES,
    issuer: Issuer | None = None,
    days: int = VALID_DAYS,
) -> Attestation:
    """Attest an agent's active key, by the hub's own trust anchor or by another issuer."""
    return issue_attestation(
        agent_id,
        issuer or Issuer.objects.get(slug="local"),
        level=level,
        capabilities=capabilities,
        days=days,
        actor=OFFICER,
    )


def row_of(player: Player) -> Agent:
    return Agent.objects.get(pk=player.id)


# --- Write envelopes -----------------------------------------------------------------------------


def write(
    sender: Player,
    target: Player | str,
    *,
    kind: MessageType = MessageType.NOTIFICATION,
    sensitivity: str | None = None,
    lifetime: int = LIFETIME_SECONDS,
    req: str | None = None,
    cause: str | None = None,
    hub: str | None = None,
    trace: str | None = None,
    on_behalf_of: str | None = None,
    **parts: Any,
) -> Letter:
    """Return a valid envelope; `parts` goes to `new_document`."""
    parts.setdefault("data", {"text": "hello"})
    if sensitivity is not None:
        parts["policy_context"] = IPolicyContext(data_sensitivity=DataSensitivity(sensitivity))
    document = new_document(
        identity=sender.identity, message_type=kind, target=_id(target), **parts
    )
    raw = sign_envelope(
        document,
        sender.key,
        hub_id=hub or sender.hub,
        now=time.time(),
        lifetime_seconds=lifetime,
        req=req,
        cause=cause,
        trace=trace,
        on_behalf_of=on_behalf_of,
    )
    return _letter(raw.decode())


def ask(sender: Player, target: Player | str, **parts: Any) -> Letter:
    """Return a request."""
    return write(sender, target, kind=MessageType.REQUEST, **parts)


def answer(sender: Player, request: Letter, **parts: Any) -> Letter:
    """Return the response to a request, as its recipient writes it; arguments change its parts."""
    envelope = request.envelope
    parts.setdefault("request_id", envelope.request_id)
    parts.setdefault("req", request.digest)
    target = parts.pop("target", envelope.sender)
    return write(sender, target, kind=MessageType.RESPONSE, **parts)


def broadcast(sender: Player, **parts: Any) -> Letter:
    return write(sender, "*", kind=MessageType.BROADCAST, **parts)


def forged(
    sender: Player,
    target: Player | str,
    *,
    kind: MessageType = MessageType.NOTIFICATION,
    before: Change | None = None,
    header: Mapping[str, Any] | None = None,
    claims: Mapping[str, Any] | None = None,
    after: Change | None = None,
    key: PrivateKey | bytes | str | None = OWN,
    **signing: Any,
) -> Letter:
    """Return an envelope with one fault that `write` never makes.

    `before` changes the document and is signed, `after` changes it after signing;
    `header` and `claims` replace members of the token (`None` drops one). `key` signs: another
    agent's, bytes for an HMAC, `None` for no signature at all.
    """
    now = time.time()
    document = new_document(
        identity=sender.identity, message_type=kind, target=_id(target), data={"text": "forged"}
    )
    document["timestamp"] = format_timestamp(now)
    document["payload"]["salt"] = secrets.token_urlsafe(16)
    if before is not None:
        before(document)
    envelope = parse_envelope(json.dumps({"ATP": document}))
    arguments = {"hub_id": sender.hub, "now": now, "lifetime_seconds": LIFETIME_SECONDS, **signing}
    made = changed(signing_claims(envelope, **arguments), claims)
    head = changed({"alg": sender.key.alg, "kid": sender.key.kid, "typ": "atp-msg+jwt"}, header)
    signer = sender.key if isinstance(key, str) else key
    document["signature"] = forge(head, made, signer)
    if after is not None:
        after(document)
    return Letter(json.dumps({"ATP": document}), str(document["messageId"]), envelope.digest)


def tampered(letter: Letter, change: Change) -> Letter:
    """Return a valid envelope that was changed after signing."""
    document = copy.deepcopy(json.loads(letter.text)["ATP"])
    change(document)
    return Letter(json.dumps({"ATP": document}), letter.message_id, letter.digest)


def changed(members: Mapping[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `members` with `changes`; a change to `None` removes the member."""
    merged = {**members, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def prove(
    player: Player,
    *,
    url: str,
    nonce: str,
    header: Mapping[str, Any] | None = None,
    key: PrivateKey | bytes | str | None = OWN,
    **claims: Any,
) -> str:
    """Return the proof of a login, with the given faults."""
    now = int(time.time())
    honest = {
        "iss": player.id,
        "aud": player.hub,
        "htu": url,
        "nonce": nonce,
        "cnonce": uuid.uuid4().hex,
        "iat": now,
        "exp": now + 60,
    }
    head = changed({"alg": player.key.alg, "kid": player.key.kid, "typ": "atp-auth+jwt"}, header)
    return forge(head, changed(honest, claims), player.key if isinstance(key, str) else key)


def _letter(text: str) -> Letter:
    envelope = parse_envelope(text)
    return Letter(text, envelope.message_id, envelope.digest)


def _id(target: Player | str) -> str:
    return target if isinstance(target, str) else target.id
