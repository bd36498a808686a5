"""Reads an export entry by entry and checks each with what the entries before it said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from examples.verifier import scores
from examples.verifier.judge import Judge, Said
from examples.verifier.leaf import Entry, digest, leaf_problems, token_problems
from examples.verifier.policies import Rule, rules_of

VERDICTS = ("envelope.accepted", "envelope.denied")
HEADER = ("verdict", "sensitivity", "policy", "rule", "issuer", "attestation", "score")
SHARED = ("code", "level", "matched", "monitored", "leftOut", "violation")
NOTHING: tuple[Any, ...] = ("", None, [], {}, 0)


class Verifier:
    """Checks leaves, signatures, scores and verdicts of a log from its beginning.

    `checked` counts what was checked, `problems` what did not fit.
    """

    def __init__(self) -> None:
        self.checked: Counter[str] = Counter()
        self.problems = 0
        self._next: dict[str, int] = {}
        self._keys: dict[str, dict[str, str]] = {}
        self._inputs: dict[int, Said] = {}
        self._attestations: dict[str, Said] = {}
        self._in_force: dict[str, Said] = {}
        self._sets: dict[str, list[Rule]] = {}
        self._profiles: dict[int, Said] = {}
        self._chains: dict[str, Said] = {}

    def read(self, entry: Entry) -> list[str]:
        """Check the next entry; return what is wrong with it."""
        where = f"entry {entry['index']} {entry['kind']}"
        found = []
        try:
            for problem in self._check(entry):
                found.append(f"{where}: {problem}")  # noqa: PERF401  # what came before an error
        except (KeyError, IndexError, TypeError, ValueError) as error:
            found.append(f"{where}: it does not say what it should: {error!r}")
        self.problems += len(found)
        return found

    def _check(self, entry: Entry) -> Iterator[str]:
        if entry["index"] != self._next.get(entry["log"], 0):
            yield "an entry before it is missing"
        self._next[entry["log"]] = entry["index"] + 1
        yield from leaf_problems(entry)
        self.checked["leaves"] += 1
        shared = entry["body"]["shared"]
        if entry["kind"] in VERDICTS:
            yield from self._check_verdict(entry, shared)
        elif entry["kind"] == "score.changed":
            yield from self._check_score(entry, shared)
        self._note(entry, shared)

    def _check_verdict(self, entry: Entry, shared: Said) -> Iterator[str]:
        judge = Judge(entry, self)
        yield from token_problems(entry, self._keys.get(judge.kid))
        self.checked["signatures"] += 1
        verdict = judge.judge()
        found = {name: entry.get(name) for name in HEADER}
        found |= {name: shared.get(name) for name in SHARED}
        for name, value in found.items():
            again = getattr(verdict, name)
            if value != again and not (value in NOTHING and again in NOTHING):
                yield f"{name} is {value!r}, and follows as {again!r}"
        if judge.recipient.get("audience"):
            yield from self._check_hearers(judge)
        yield from self._check_chain(judge)
        if verdict.verdict == "accepted":
            self._chains[judge.claims["digest"]] = judge.chain
        self.checked["verdicts"] += 1

    def _check_hearers(self, judge: Judge) -> Iterator[str]:
        groups = [g for g in judge.recipient["audience"] if g.get("heard", True)]
        if [agent for group in groups for agent in group["agents"]] != judge.verdict.hearers:
            yield "the hearers do not follow"

    def _check_chain(self, judge: Judge) -> Iterator[str]:
        """Compare the chain of the cause with the one that was found for the cause itself."""
        cause, known = judge.shared.get("cause"), self._chains.get(judge.claims.get("cause", ""))
        if cause is not None and known is not None:
            names = ("lowestLevel", "lowestScore", "depth")
            if any(cause[name] != known[name] for name in names):
                yield "the chain of its cause is not the one that the cause has"

    def _check_score(self, entry: Entry, shared: Said) -> Iterator[str]:
        profile = self._profiles[shared["profile"]]
        again = scores.score(shared["inputs"], shared["computedAt"], profile)
        if again != entry["score"]:
            yield f"the score is {entry['score']}, and follows as {again}"
        self.checked["scores"] += 1

    def _note(self, entry: Entry, shared: Said) -> None:
        kind, subject = entry["kind"], entry["kind"].partition(".")[0]
        if "jwk" in shared:
            self._keys[shared["kid"]] = shared["jwk"]
        if kind == "score.changed":
            self._inputs[entry["index"]] = shared["inputs"]
        elif subject == "attestation" and "jti" in shared:
            self._attestations.setdefault(shared["jti"], {**shared, "issuer": entry["issuer"]})
        elif subject in ("policy", "profile"):
            document = shared["document"] if kind.endswith(".stated") else shared["after"]
            if subject == "profile":
                self._profiles[document["version"]] = document
            else:
                self._change_policy(document, shared.get("before"))

    def _change_policy(self, document: Said, before: Said | None) -> None:
        if before is not None:
            self._in_force.pop(before["name"], None)
        self._in_force.pop(document["name"], None)
        if document["mode"] != "off":
            self._in_force[document["name"]] = document
        now = [self._in_force[name] for name in sorted(self._in_force)]
        self._sets[digest(now)] = rules_of(now)

    # What `Judge` asks.

    def inputs(self, said: Said) -> dict[str, Any]:
        """Return score inputs: those of the entry that is named, with what has changed since."""
        base = self._inputs[said["entry"]] if "entry" in said else scores.DEFAULTS
        return {**base, **said.get("but", {})}

    def attestation(self, jti: str) -> Said:
        """Return what the entry of an attestation says, with its issuer."""
        return self._attestations[jti]

    def policies(self, hash_: str) -> list[Rule]:
        """Return the rules of the set of policies with this hash."""
        return self._sets[hash_]

    def profile(self, version: int) -> Said:
        """Return a version of the scoring profile."""
        return self._profiles[version]
