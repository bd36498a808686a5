"""A verdict made again from its entry, for the pages of officers.

What the entry names is read from the hub's own tables. An auditor reads it from other entries
(`atp/judging/evidence.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from atp.errors import MalformedDocument
from atp.judging.facts import AttestationFacts, Facts
from atp.judging.judgement import Verdict, judge_message
from atp.judging.policy import PolicySet
from atp.judging.profile import Profile
from atp.judging.rebuilding import rebuild
from atp.judging.scoring import ScoreInputs
from atp.log import leaves
from messaging.judging.registry_view import attestation_facts
from messaging.models import Envelope
from registry.models import Attestation
from registry.policies.querysets import current_policy_set, policy_set_at
from registry.scores.querysets import profile_of_version
from registry.trail.kinds import Kind
from registry.trail.logs import known
from registry.trail.models import Entry, EntryBody

__all__ = ["StoredEvidence", "judge_again", "said_in"]


@dataclass(frozen=True, slots=True)
class StoredEvidence:
    """What entries name, from the hub's tables; `at` is the time of the verdict."""

    at: datetime

    def inputs(self, entry: int) -> ScoreInputs:
        """Return the score inputs of an entry `score.changed` of the log that grows."""
        body = EntryBody.objects.filter(pk=known.first() + entry).first()
        said = body.read() if body else {}
        if "inputs" not in said:
            raise MalformedDocument(f"entry {entry} has no score inputs")
        return ScoreInputs.from_dict(said["inputs"])

    def attestation(self, jti: str) -> AttestationFacts:
        """Return a registered attestation, without a fault."""
        row = Attestation.objects.select_related("issuer").filter(pk=jti).first()
        if row is None:
            raise MalformedDocument(f"there is no attestation {jti}")
        return attestation_facts(row)

    def policy_set(self, digest: str) -> PolicySet:
        """Return the policies of now, or of the time of the verdict, with this hash."""
        for policy_set in (current_policy_set(), policy_set_at(self.at)):
            if policy_set.hash == digest:
                return policy_set
        raise MalformedDocument("the policies in force at that time are not the recorded ones")

    def profile(self, version: int) -> Profile:
        """Return this version of the scoring profile."""
        return profile_of_version(version)


def judge_again(envelope: Envelope) -> tuple[Verdict, Facts]:
    """Judge a stored envelope again, by what its entry says; return verdict and facts.

    Raises `MalformedDocument` if the entry, or something that it names, is missing.
    """
    entry = (
        Entry.objects.filter(
            message_id=envelope.message_id,
            sender=envelope.sender_id,
            kind__in=(Kind.ENVELOPE_ACCEPTED, Kind.ENVELOPE_DENIED),
        )
        .select_related("body")
        .first()
    )
    if entry is None:
        raise MalformedDocument("the trail has no entry about its verdict")
    message, facts = rebuild(said_in(entry), StoredEvidence(envelope.judged_at))
    return judge_message(message, facts), facts


def said_in(entry: Entry) -> dict[str, Any]:
    """Return an entry as an export has it; `body` must be loaded. Erased sections are `None`."""
    sections = {name: entry.body.read(name) or None for name in leaves.SECTIONS}
    header: dict[str, Any] = orjson.loads(bytes(entry.leaf))
    return {**header, "body": sections}
