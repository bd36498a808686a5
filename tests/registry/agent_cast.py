"""Make agents as officers and owners do: register, enrol, approve, attest."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from atp.trust import tokens
from atp.trust.keys import PrivateKey
from atp.wire.canonical import sha256_b64url
from registry.agents.actions import (
    approve_key,
    enrol_key,
    issue_enrolment_token,
    register_agent,
)
from registry.agents.models import Agent, AgentKey, Organisation
from registry.attestations.actions import issue_attestation
from registry.attestations.models import Attestation
from registry.hub.actions import hub_id
from registry.issuers.actions import Limits, create_issuer
from registry.issuers.models import Issuer
from registry.officers.actor import Actor
from registry.trail.models import Entry

OFFICER = Actor(name="officer:0123456789ab")


@dataclass(frozen=True, slots=True)
class Enrolled:
    agent: str
    key: PrivateKey
    row: AgentKey


def fresh(name: str) -> str:
    """Return a name that no other test uses."""
    return f"{name}-{secrets.token_hex(5)}"


def register(name: str = "alice", **fields: Any) -> Agent:
    organisation = Organisation.objects.get(name="Default organisation")
    fields = {"organisation": organisation, "owner_name": "Ann", "actor": OFFICER, **fields}
    return register_agent(fresh(name), **fields)


def proof_for(agent: str, token: str, key: PrivateKey, **other: Any) -> str:
    """Return the proof of an enrolment, with the given faults."""
    claims = {
        "iss": agent,
        "aud": hub_id(),
        "tth": sha256_b64url(token.encode()),
        "jkt": key.kid,
        **other,
    }
    return tokens.issue(tokens.TokenKind.ENROL, claims, key, now=other.get("iat", int(time.time())))


def enrol(agent: str, *, key: PrivateKey | None = None) -> Enrolled:
    """Return a pending key of the agent."""
    key = key or PrivateKey.generate()
    token = issue_enrolment_token(agent, actor=OFFICER).text
    proof = proof_for(agent, token, key)
    row = enrol_key(token=token, proof=proof, jwk=key.public.jwk, now=time.time())
    return Enrolled(agent, key, row)


def active(name: str = "alice", **fields: Any) -> Enrolled:
    """Return an agent with an approved key."""
    enrolled = enrol(register(name, **fields).id)
    approve_key(enrolled.row.kid, actor=OFFICER)
    return enrolled


def local() -> Issuer:
    return Issuer.objects.get(slug="local")


def attest(
    agent: str,
    issuer: Issuer | None = None,
    *,
    level: str = "verified",
    capabilities: Iterable[str] = (),
    days: int = 30,
) -> Attestation:
    return issue_attestation(
        agent,
        issuer or local(),
        level=level,
        capabilities=capabilities,
        days=days,
        actor=OFFICER,
    )


def issuer(
    name: str = "issuer",
    *,
    parent: Issuer | None = None,
    level: str = "certified",
    patterns: tuple[str, ...] = ("*",),
    days: int = 365,
    **more: Any,
) -> Issuer:
    slug = fresh(name)
    limits = Limits(
        highest_level=level,
        capability_patterns=patterns,
        longest_validity_days=days,
        not_before=more.pop("not_before", None),
        not_after=more.pop("not_after", None),
    )
    return create_issuer(slug, limits, name=slug, parent=parent, actor=OFFICER, **more)


def kinds_about(subject: str) -> list[str]:
    """Return the kinds of the trail's entries about a subject, in order."""
    return list(
        Entry.objects.filter(subject=subject).order_by("position").values_list("kind", flat=True)
    )
