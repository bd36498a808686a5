"""Random facts of decisions, and the entries of a trail that say them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from atp.judging.facts import (
    AgentFacts,
    AttestationFacts,
    CauseFacts,
    Chain,
    Facts,
    RecipientFacts,
    RequestFacts,
)
from atp.judging.judgement import Verdict
from atp.judging.message import MessageFacts
from atp.judging.policy import BASELINE, compile_policies
from atp.judging.profile import Profile
from atp.judging.scoring import ScoredViolation, ScoreInputs, score
from atp.types import DataSensitivity, MessageType, TrustLevel
from atp.wire.canonical import b64url, serialize

NOW = 1_800_000_000
KIDS = ("k" * 43, "l" * 43)
LEVELS = [level.value for level in TrustLevel]
SENSITIVITIES = [one.value for one in DataSensitivity]
CAPABILITIES = ("a.b", "a.c", "d.e")
TOOLS = ("search", "mail")
NAMES = ("alice", "bob", "carol", "dave", "erin")
SALT = "s" * 22

T = TypeVar("T")


class Dice:
    """Random facts from one seed. Most lead beyond the first steps of a judgement."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  # no secrets

    def one(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def rarely(self, value: Any, usual: Any, *, of: int = 8) -> Any:
        return value if self._random.randrange(of) == 0 else usual

    def number(self, least: int, most: int) -> int:
        return self._random.randint(least, most)

    def some(self, choices: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(one for one in choices if self._random.random() < 0.5)

    def level(self) -> str:
        return str(self.one("certified", "certified", *LEVELS))

    def sensitivity(self) -> str:
        return str(self.one("public", "internal", *SENSITIVITIES))

    def severity(self) -> str:
        return str(self.one("low", "medium", "high", "critical"))


def build(kind: type[T], **parts: Any) -> T:
    """Return a value of a dataclass; each of its fields must be given."""
    assert {field.name for field in fields(kind)} == parts.keys(), f"{kind.__name__} has new fields"  # type: ignore[arg-type]
    return kind(**parts)


def agent(dice: Dice, name: str) -> AgentFacts:
    return build(
        AgentFacts,
        id=name,
        status=dice.rarely(dice.one("suspended", "revoked"), "active", of=20),
        organisation=dice.one("acme", "zeta"),
        organisation_uid=dice.one("org_1", "org_2"),
        tags=dice.one((), ("x",), ("x", "y")),
        sensitivity_floor=dice.rarely(dice.sensitivity(), "public"),
        minimum_level=dice.rarely(dice.level(), ""),
        minimum_score=dice.rarely(dice.one(30, 90), 0),
    )


def attestations(dice: Dice, *, of: str) -> list[AttestationFacts]:
    number = dice.rarely(0, dice.number(1, 3))
    return [_attestation(dice, f"jti-{of}-{n}") for n in range(number)]


def _attestation(dice: Dice, jti: str) -> AttestationFacts:
    return build(
        AttestationFacts,
        jti=jti,
        issuer=dice.one("local", "other"),
        level=dice.level(),
        capabilities=frozenset(dice.some(CAPABILITIES)),
        jkt=dice.rarely(KIDS[1], KIDS[0]),
        issued_at=dice.rarely(NOW + 10, NOW - dice.number(1, 10_000)),
        expires_at=dice.rarely(NOW - 10, NOW + dice.number(1, 10_000)),
        fault=dice.rarely(dice.one("attestation.revoked", "attestation.issuer"), ""),
    )


def inputs(dice: Dice) -> ScoreInputs:
    violations = [
        ScoredViolation(
            dice.severity(), NOW - dice.number(0, 100_000), dice.rarely(True, False), "rule"
        )
        for _ in range(dice.rarely(dice.number(1, 3), 0, of=3))
    ]
    return build(
        ScoreInputs,
        level=dice.rarely(None, dice.level()),
        issued_at=dice.rarely(None, NOW - dice.number(0, 10_000)),
        expires_at=dice.rarely(None, NOW + dice.number(-10, 10_000)),
        required_capabilities=dice.rarely(dice.some(CAPABILITIES), ()),
        declared_capabilities=dice.some(CAPABILITIES),
        attested_capabilities=dice.some(CAPABILITIES),
        key_algorithm=dice.one(None, "EdDSA", "EdDSA", "ES256", "demo"),
        signatures_good=dice.number(0, 100),
        signatures_total=dice.number(0, 100),
        good_envelopes=dice.number(0, 200),
        violations=tuple(violations),
        status=dice.rarely("suspended", "active", of=20),
        parent_total=dice.rarely(dice.number(0, 100), None),
    )


def recipient(dice: Dice, name: str) -> RecipientFacts:
    return build(
        RecipientFacts,
        agent=agent(dice, name),
        attestations=attestations(dice, of=name),
        inputs=dice.rarely(None, inputs(dice)),
        full=dice.rarely(True, False, of=20),
    )


CONDITIONS = (
    ("sender.level", "at_least", "verified"),
    ("sender.score", "at_least", 50),
    ("sender.tags", "contains", "x"),
    ("sender.organisation", "equals", "acme"),
    ("sender.capabilities", "contains", "a.b"),
    ("recipient.level", "at_most", "verified"),
    ("recipient.score", "at_least", 40),
    ("recipient.tags", "not_in", ["x"]),
    ("recipient.capabilities", "contains", "a.c"),
    ("recipient.key_algorithm", "equals", "EdDSA"),
    ("recipient.organisation", "equals", "zeta"),
    ("message.size", "less_than", 500),
    ("message.age", "less_than", 5),
    ("message.allowed_tools", "contains", "mail"),
    ("message.required_capabilities", "contains", "a.b"),
    ("message.lifespan_exceeded", "equals", True),
    ("data.sensitivity", "at_least", "confidential"),
    ("chain.depth", "less_than", 3),
    ("chain.lowest_score", "at_least", 20),
    ("context.messages_per_minute", "less_than", 5),
    ("time.hour:Europe/Berlin", "between", [8, 18]),
    ("payload:/data/amount", "at_least", 5),
    ("payload:/data/amount", "exists", True),
    ("payload:/data/name", "equals", "x"),
)


def policies(dice: Dice) -> list[dict[str, Any]]:
    """Return policy documents as versions store them: the baseline, or random rules."""
    if dice.rarely(True, False, of=3):
        return [{"mode": "enforce", **one} for one in BASELINE]
    rules = [_rule(dice, number) for number in range(dice.number(0, 5))]
    allow = [{"name": "all", "action": "allow", "always": True}]
    return [
        {"name": "p", "mode": dice.one("enforce", "enforce", "monitor"), "rules": rules},
        {"name": "q", "mode": "enforce", "rules": dice.rarely([], allow)},
    ]


def _rule(dice: Dice, number: int) -> dict[str, Any]:
    action = dice.one("allow", "deny", "throttle", "log")
    conditions = [dice.one(*CONDITIONS) for _ in range(dice.number(1, 2))]
    made = {
        "name": f"rule {number}",
        "action": action,
        "severity": dice.severity(),
        "conditions": [{"field": f, "operator": o, "value": v} for f, o, v in conditions],
    }
    return made | ({"throttle": {"limit": 3, "per_seconds": 60}} if action == "throttle" else {})


def message(dice: Dice) -> MessageFacts:
    kind = dice.one(*MessageType).value
    answers = kind == MessageType.RESPONSE
    data = {"amount": dice.one(1, 7, "x"), "name": dice.one("x", 1)}
    return build(
        MessageFacts,
        kid=KIDS[0],
        issued_at=NOW - dice.number(0, 20),
        req="r" * 43 if answers else dice.rarely("r" * 43, None, of=20),
        cause=dice.one("c" * 43, None),
        sender="alice",
        target="*" if kind == MessageType.BROADCAST else dice.rarely("alice", "bob", of=20),
        message_type=kind,
        request_id=dice.rarely("r-2", "r-1") if answers else dice.one(None, "r-1"),
        sensitivity=dice.one(None, dice.sensitivity()),
        requires_trust=dice.rarely(dice.level(), None),
        required_capabilities=dice.rarely(dice.some(CAPABILITIES), (), of=3),
        allowed_tools=dice.some(TOOLS),
        max_lifespan_seconds=dice.one(None, 100, 1),
        size=dice.one(400, 900),
        payload={"salt": SALT, "data": dice.one(data, {}, None)},
        recorded={},
    )


def facts(dice: Dice, documents: list[dict[str, Any]], said: MessageFacts) -> Facts:
    broadcast = said.target == "*"
    one = None if broadcast else dice.rarely(None, recipient(dice, said.target), of=20)
    hearers = sorted(dice.some(NAMES[1:])) if broadcast else ()
    return build(
        Facts,
        now=NOW + dice.number(0, 999) / 1_000,
        sender=dice.rarely(None, agent(dice, "alice"), of=20),
        attestations=attestations(dice, of="alice"),
        inputs=inputs(dice),
        policy_set=compile_policies(documents),
        recipient=one.agent if one else None,
        recipient_attestations=one.attestations if one else (),
        recipient_inputs=one.inputs if one else None,
        recipient_full=one.full if one else False,
        audience=[recipient(dice, name) for name in hearers],
        request=_request(dice) if said.req else dice.rarely(_request(dice), None),
        cause=dice.rarely(None, _cause(dice)) if said.cause else dice.rarely(_cause(dice), None),
        rates=dice.one({}, {"context.messages_per_minute": dice.number(0, 9)}),
        profile=dice.one(Profile(), Profile(version=2, demo_ceiling=20, half_life_days=3)),
        counts={f"p/rule {n}": dice.number(0, 4) for n in dice.some(range(4))},
        score=score,
    )


def _request(dice: Dice) -> RequestFacts:
    return build(
        RequestFacts,
        sender=dice.rarely("carol", "bob"),
        target=dice.rarely("carol", "alice"),
        request_id=dice.rarely("r-2", "r-1"),
        expires_at=NOW + dice.rarely(0, 100),
        sensitivity=dice.sensitivity(),
        requires_trust=dice.rarely(dice.level(), ""),
        answered=dice.rarely(True, False),
    )


def _cause(dice: Dice) -> CauseFacts:
    chain = build(
        Chain,
        lowest_level=dice.level(),
        lowest_score=dice.number(0, 100),
        depth=dice.one(1, 2, 31, 32),
        highest_sensitivity=dice.sensitivity(),
    )
    return build(CauseFacts, received=dice.rarely(False, True), chain=chain)


# --- Entries that say them -----------------------------------------------------------------------


def registry_entries(
    documents: list[dict[str, Any]], given: Facts, bases: Mapping[str, ScoreInputs]
) -> list[dict[str, Any]]:
    """Return the entries that a log has of the registry behind these facts."""
    said = [entry(0, "policy.stated", document=one) for one in documents]
    said.append(entry(0, "profile.stated", document=Profile().to_dict()))
    if given.profile.version != 1:
        said.append(entry(1, "profile.changed", after=given.profile.to_dict()))
    everybody = [given.attestations, given.recipient_attestations]
    everybody += [one.attestations for one in given.audience]
    said += [
        {**entry(2, "attestation.issued", **_attested(one)), "issuer": one.issuer}
        for some in everybody
        for one in some
    ]
    for place, base in enumerate(bases.values()):
        said.append(entry(base_index(place), "score.changed", inputs=base.to_dict()))
    return said


def base_index(place: int) -> int:
    return 10 + place


def entry(index: int, kind: str, **shared: Any) -> dict[str, Any]:
    return {"index": index, "kind": kind, "body": {"shared": shared}}


def _attested(one: AttestationFacts) -> dict[str, Any]:
    return {
        "jti": one.jti,
        "level": one.level,
        "capabilities": sorted(one.capabilities),
        "jkt": one.jkt,
        "issuedAt": one.issued_at,
        "expiresAt": one.expires_at,
    }


def token_of(said: MessageFacts) -> str:
    """Return a token with the claims that the message must have; nobody signed it."""
    claims = {"iss": said.sender, "aud": ["hub-1", said.target], "iat": said.issued_at}
    claims |= {"req": said.req} if said.req else {}
    claims |= {"cause": said.cause} if said.cause else {}
    head = {"alg": "EdDSA", "kid": said.kid, "typ": "atp-msg+jwt"}
    return ".".join(b64url(serialize(part)) for part in (head, claims, {}))


def header_of(given: Facts, verdict: Verdict) -> dict[str, Any]:
    """Return the members of the header of an entry that a verdict decides."""
    members = {
        "verdict": verdict.status,
        "sensitivity": verdict.sensitivity,
        "policy": verdict.decision.policy if verdict.decision else "",
        "rule": verdict.rule,
        "issuer": verdict.issuer,
        "attestation": verdict.attestation,
        "senderOrganisation": given.sender.organisation_uid if given.sender else "",
        "recipientOrganisation": given.recipient.organisation_uid if given.recipient else "",
    }
    return {"score": verdict.score, **{n: v for n, v in members.items() if v}}
