"""Make a decision again from the trail: from its entry and from the entries that it names.

The reverse of `recording.py`. An entry is a mapping as an export has it: the members of its header,
and `body` with the sections `shared`, `sender` and `recipient`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from atp.errors import MalformedDocument
from atp.judging.facts import (
    AgentFacts,
    AttestationFacts,
    CauseFacts,
    Chain,
    Facts,
    RecipientFacts,
    RequestFacts,
)
from atp.judging.judgement import Verdict, judge_message
from atp.judging.message import MessageFacts
from atp.judging.policy import PolicySet, RecordedPayload, RecordedValue
from atp.judging.profile import Profile
from atp.judging.recording import MILLISECONDS, USUAL_FLOOR, USUAL_STATUS
from atp.judging.scoring import ScoreInputs
from atp.trust.signing import read_header, unverified_claims

__all__ = ["Evidence", "differences", "rebuild", "recompute"]

_FIELDS_OF_LISTS = {
    "requiredCapabilities": "message.required_capabilities",
    "allowedTools": "message.allowed_tools",
}
_ANY = 2**53  # a time after every other


class Evidence(Protocol):
    """What other entries say to which the entry of a decision refers.

    Each method raises `MalformedDocument` if no entry says it.
    """

    def inputs(self, entry: int) -> ScoreInputs:
        """Return the score inputs of an entry `score.changed`."""

    def attestation(self, jti: str) -> AttestationFacts:
        """Return an attestation as it was entered, without a fault."""

    def policy_set(self, digest: str) -> PolicySet:
        """Return the policies whose set has this hash."""

    def profile(self, version: int) -> Profile:
        """Return this version of the scoring profile."""


def recompute(entry: Mapping[str, Any], evidence: Evidence) -> Verdict:
    """Judge again what an entry is about. Raises `MalformedDocument` if something is missing."""
    return judge_message(*rebuild(entry, evidence))


def differences(entry: Mapping[str, Any], verdict: Verdict) -> list[str]:
    """Return the names of the members in which an entry and a verdict differ."""
    shared = _section(entry, "shared")
    said = {name: entry.get(name, default) for name, default in _HEADER.items()}
    said |= {name: shared.get(name, default) for name, default in _SHARED.items()}
    return [name for name, value in _conclusion(verdict).items() if said[name] != value]


_HEADER: Mapping[str, Any] = {
    "verdict": "",
    "sensitivity": "",
    "policy": "",
    "rule": "",
    "issuer": "",
    "attestation": "",
    "score": 0,
}
_SHARED: Mapping[str, Any] = {
    "level": "",
    "code": "",
    "detail": "",
    "matched": [],
    "monitored": [],
    "leftOut": {},
    "violation": None,
}


def _conclusion(verdict: Verdict) -> dict[str, Any]:
    decision = verdict.decision
    violation = {"severity": verdict.violation, "rule": verdict.violated}
    return {
        "verdict": verdict.status,
        "sensitivity": verdict.sensitivity,
        "policy": decision.policy if decision else "",
        "rule": verdict.rule,
        "issuer": verdict.issuer,
        "attestation": verdict.attestation,
        "score": verdict.score,
        "level": verdict.level,
        "code": verdict.code,
        "detail": verdict.detail,
        "matched": [_match(one) for one in verdict.matched],
        "monitored": [_match(one) for one in verdict.monitored],
        "leftOut": dict(verdict.left_out),
        "violation": violation if verdict.violation else None,
    }


def _match(match: Any) -> dict[str, str]:
    names = ("policy", "rule", "action", "severity")
    return {name: getattr(match, name) for name in names}


def rebuild(entry: Mapping[str, Any], evidence: Evidence) -> tuple[MessageFacts, Facts]:
    """Return what the judgement of an entry read.

    What it did not read may be missing. Raises `MalformedDocument` if something is missing that it
    read, or a section was erased.
    """
    try:
        message = _message(entry)
        return message, _facts(entry, message, evidence)
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise MalformedDocument(f"the entry does not say what it should: {problem!r}") from problem


def _message(entry: Mapping[str, Any]) -> MessageFacts:
    shared = _section(entry, "shared")
    said, claims = shared["message"], unverified_claims(shared["jws"])
    return MessageFacts(
        kid=read_header(shared["jws"]).kid,
        issued_at=claims["iat"],
        req=claims.get("req"),
        cause=claims.get("cause"),
        sender=claims["iss"],
        target=claims["aud"][1],
        message_type=said["type"],
        request_id=shared.get("requestId"),
        sensitivity=said.get("sensitivity"),
        requires_trust=said.get("requiresTrust"),
        required_capabilities=_required(shared),
        allowed_tools=tuple(said.get("allowedTools", ())),
        max_lifespan_seconds=said.get("maxLifespanSeconds"),
        size=said["size"],
        payload=_payload(shared),
        recorded=_recorded(shared),
    )


def _required(shared: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the required capabilities; of a list that was not kept, one that stands for all."""
    cut = shared.get("notKept", {}).get("requiredCapabilities")
    return (
        tuple(shared["message"].get("requiredCapabilities", ()))
        if cut is None
        else (cut["digest"],)
    )


def _payload(shared: Mapping[str, Any]) -> RecordedPayload:
    values = shared.get("payload", {})
    return RecordedPayload({name: RecordedValue.from_record(v) for name, v in values.items()})


def _recorded(shared: Mapping[str, Any]) -> dict[str, RecordedValue]:
    cuts = shared.get("notKept", {})
    return {
        field: RecordedValue(cuts[name]["digest"], cuts[name]["holds"])
        for name, field in _FIELDS_OF_LISTS.items()
        if "holds" in cuts.get(name, {})
    }


def _facts(entry: Mapping[str, Any], message: MessageFacts, evidence: Evidence) -> Facts:
    shared, sender = _section(entry, "shared"), _section(entry, "sender")
    own = _agent(sender.get("agent"), message.sender, entry.get("senderOrganisation", ""))
    recipient = _section(entry, "recipient", optional=True)
    uid = entry.get("recipientOrganisation", "")
    one = _recipient(recipient, message, evidence, uid) if "agent" in recipient else None
    by = shared["judgedBy"]
    return Facts(
        now=shared["nowMilliseconds"] / MILLISECONDS,
        sender=own,
        attestations=_attestations(entry, sender, evidence),
        inputs=_inputs(sender["inputs"], evidence),
        policy_set=evidence.policy_set(by["policySet"]),
        recipient=one.agent if one else None,
        recipient_attestations=one.attestations if one else (),
        recipient_inputs=one.inputs if one else None,
        recipient_full=one.full if one else False,
        audience=list(_audience(recipient, message, evidence, own)),
        request=_request(shared.get("request"), message),
        cause=_cause(shared.get("cause")),
        rates=sender.get("rates", {}),
        profile=evidence.profile(by["profile"]),
        counts=sender.get("counts", {}),
    )


def _section(entry: Mapping[str, Any], name: str, *, optional: bool = False) -> Mapping[str, Any]:
    section: Mapping[str, Any] | None = entry["body"].get(name)
    if section is None and not optional:
        raise MalformedDocument(f"the section {name} of the entry is not there")
    return section or {}


def _agent(said: Mapping[str, Any] | None, usual_id: str, uid: str) -> AgentFacts | None:
    if said is None:
        return None
    return AgentFacts(
        id=said.get("id", usual_id),
        status=said.get("status", USUAL_STATUS),
        organisation=said["organisation"],
        organisation_uid=uid,
        tags=tuple(said.get("tags", ())),
        sensitivity_floor=said.get("sensitivityFloor", USUAL_FLOOR),
        minimum_level=said.get("minimumLevel", ""),
        minimum_score=said.get("minimumScore", 0),
    )


def _attestations(
    entry: Mapping[str, Any], sender: Mapping[str, Any], evidence: Evidence
) -> list[AttestationFacts]:
    if "attestation" in sender:  # the one for which it was refused
        said = sender["attestation"]
        return [replace(evidence.attestation(said["jti"]), fault=said["fault"])]
    return [evidence.attestation(entry["attestation"])] if entry.get("attestation") else []


def _inputs(said: Mapping[str, Any], evidence: Evidence) -> ScoreInputs:
    base = evidence.inputs(said["entry"]) if "entry" in said else ScoreInputs()
    return ScoreInputs.from_dict({**base.to_dict(), **said.get("but", {})})


def _recipient(
    said: Mapping[str, Any], message: MessageFacts, evidence: Evidence, uid: str
) -> RecipientFacts:
    agent = _agent(said["agent"], message.target, uid)
    assert agent is not None
    attestations = []
    if "covering" in said:
        covering = evidence.attestation(said["covering"])
        names = covering.capabilities.union(message.required_capabilities)
        attestations.append(replace(covering, capabilities=names))
    return RecipientFacts(
        agent, attestations, _standing(said, evidence), full=said.get("full", False)
    )


def _standing(said: Mapping[str, Any], evidence: Evidence) -> ScoreInputs | None:
    if "inputs" in said:
        return _inputs(said["inputs"], evidence)
    if "level" not in said:
        return None
    return ScoreInputs(
        level=said["level"] or None,
        attested_capabilities=tuple(said.get("capabilities", ())),
        key_algorithm=said.get("keyAlgorithm"),
    )


def _audience(
    recipient: Mapping[str, Any],
    message: MessageFacts,
    evidence: Evidence,
    sender: AgentFacts | None,
) -> Iterator[RecipientFacts]:
    for said in recipient.get("audience", ()):
        inputs = _standing(said, evidence)
        covering = _covering(said.get("covering"), message.required_capabilities)
        uid = said.get("organisationUid", sender.organisation_uid if sender else "")
        for agent_id in said["agents"]:
            agent = _agent(said["agent"], agent_id, uid)
            assert agent is not None
            yield RecipientFacts(agent, covering, inputs, full=said.get("full", False))


def _covering(level: str | None, capabilities: Sequence[str]) -> list[AttestationFacts]:
    """Return an attestation of this level for these capabilities, of which nothing else is told."""
    if level is None:
        return []
    return [AttestationFacts("", "", level, frozenset(capabilities), "", 0, _ANY)]


def _request(said: Mapping[str, Any] | None, message: MessageFacts) -> RequestFacts | None:
    if said is None:
        return None
    return RequestFacts(
        sender=said.get("sender", message.target),
        target=said.get("target", message.sender),
        request_id=said.get("requestId", message.request_id or ""),
        expires_at=said["expiresAt"],
        sensitivity=said["sensitivity"],
        requires_trust=said.get("requiresTrust", ""),
        answered=said.get("answered", False),
    )


def _cause(said: Mapping[str, Any] | None) -> CauseFacts | None:
    if said is None:
        return None
    return CauseFacts(said.get("received", True), Chain.from_wire(said))
