"""The evidence of decisions in a trail: read its entries in order, then ask for what they said.

See docs/protocol.md#the-entry-of-a-verdict. An entry is a mapping as an export has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from atp.errors import MalformedDocument
from atp.judging.facts import AttestationFacts
from atp.judging.policy import PolicySet, compile_policies
from atp.judging.profile import Profile
from atp.judging.scoring import ScoreInputs
from atp.wire.canonical import digest

__all__ = ["TrailEvidence", "attestation_said", "hash_policies"]

OFF = "off"  # the mode of a policy that is not in force

_K = TypeVar("_K")
_V = TypeVar("_V")


class TrailEvidence:
    """What the entries of a log said so far about scores, attestations, policies and profiles."""

    def __init__(self) -> None:
        self._inputs: dict[int, Mapping[str, Any]] = {}
        self._attestations: dict[str, AttestationFacts] = {}
        self._in_force: dict[str, Mapping[str, Any]] = {}
        self._sets: dict[str, list[Mapping[str, Any]]] = {}
        self._compiled: dict[str, PolicySet] = {}
        self._profiles: dict[int, Profile] = {}

    def read(self, entry: Mapping[str, Any]) -> None:
        """Note what the next entry of the log says. Entries with nothing for a decision pass."""
        said = entry["body"].get("shared") or {}
        subject = entry["kind"].partition(".")[0]
        if entry["kind"] == "score.changed":
            self._inputs[entry["index"]] = said["inputs"]
        elif subject == "attestation" and "jti" in said:
            found = attestation_said(said, issuer=entry.get("issuer", ""))
            self._attestations.setdefault(found.jti, found)
        elif subject == "policy":
            self._change_policy(_newest(said), (said.get("before") or {}).get("name"))
        elif subject == "profile":
            profile = Profile.from_dict(_newest(said))
            self._profiles[profile.version] = profile

    def inputs(self, entry: int) -> ScoreInputs:
        """Return the score inputs of an entry `score.changed`."""
        return ScoreInputs.from_dict(_found(self._inputs, entry, "score inputs of entry"))

    def attestation(self, jti: str) -> AttestationFacts:
        """Return an attestation as it was entered first, without a fault."""
        return _found(self._attestations, jti, "attestation")

    def policy_set(self, hash_: str) -> PolicySet:
        """Return the policies that were in force as a set with this hash."""
        if hash_ not in self._compiled:
            documents = _found(self._sets, hash_, "set of policies")
            self._compiled[hash_] = compile_policies(documents)
        return self._compiled[hash_]

    def profile(self, version: int) -> Profile:
        """Return this version of the scoring profile."""
        return _found(self._profiles, version, "scoring profile")

    def _change_policy(self, document: Mapping[str, Any], former_name: str | None) -> None:
        self._in_force.pop(former_name or "", None)
        self._in_force.pop(document["name"], None)
        if document["mode"] != OFF:
            self._in_force[document["name"]] = document
        now = list(self._in_force.values())
        self._sets[hash_policies(now)] = now


def _newest(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the document that a log states when it begins, or that an officer saved."""
    document: Mapping[str, Any] = said["document"] if "document" in said else said["after"]
    return document


def hash_policies(documents: Iterable[Mapping[str, Any]]) -> str:
    """Return the hash of a set of policies: the digest of their documents, in order of names."""
    return digest(sorted(documents, key=lambda document: str(document["name"])))


def attestation_said(said: Mapping[str, Any], *, issuer: str) -> AttestationFacts:
    """Return the attestation that an entry `attestation.*` describes, without a fault."""
    return AttestationFacts(
        jti=said["jti"],
        issuer=issuer,
        level=said["level"],
        capabilities=frozenset(said["capabilities"]),
        jkt=said["jkt"],
        issued_at=said["issuedAt"],
        expires_at=said["expiresAt"],
    )


def _found(known: Mapping[_K, _V], key: _K, what: str) -> _V:
    if key not in known:
        raise MalformedDocument(f"no entry has the {what} {key}")
    return known[key]
