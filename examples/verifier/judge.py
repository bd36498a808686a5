"""The verdict on an envelope, made again from its entry: docs/design/architecture.md, steps 1 to 8.

What an entry names, `Known` has read from other entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from examples.verifier import policies, scores
from examples.verifier.leaf import Entry, read_token
from examples.verifier.policies import LEVELS, SENSITIVITIES, Marked, Outcome, Rule

Said = Mapping[str, Any]

DEEPEST_CHAIN = 32
# Fields in which the sender has no hand, by the type of its message.
NOT_CHOSEN = {"response": ("recipient.", "context.", "time."), "broadcast": ("recipient.",)}
FIELDS_OF_LISTS = {
    "requiredCapabilities": "message.required_capabilities",
    "allowedTools": "message.allowed_tools",
}


class Known(Protocol):
    """What earlier entries said."""

    def inputs(self, said: Said) -> dict[str, Any]:
        """Return score inputs: those of the entry that is named, with what has changed since."""

    def attestation(self, jti: str) -> Said:
        """Return what the entry of an attestation says, with its issuer."""

    def policies(self, digest: str) -> list[Rule]:
        """Return the rules of the set of policies with this hash."""

    def profile(self, version: int) -> Said:
        """Return a version of the scoring profile."""


class Refused(Exception):
    """A step refused the envelope, with this code; `violation` is the severity if it is one."""

    def __init__(self, code: str, violation: str = "") -> None:
        super().__init__(code)
        self.code, self.violation = code, violation


@dataclass
class Verdict:
    """What a judgement finds; the names are those of the members of an entry."""

    verdict: str = "accepted"
    code: str = ""
    level: str = ""
    sensitivity: str = ""
    policy: str = ""
    rule: str = ""
    issuer: str = ""
    attestation: str = ""
    score: int = 0
    matched: list[Said] = field(default_factory=list)
    monitored: list[Said] = field(default_factory=list)
    leftOut: dict[str, int] = field(default_factory=dict)
    violation: Said | None = None
    hearers: list[str] = field(default_factory=list)


class Judge:
    """The judgement of one entry. `verdict` and `chain` are what it found, after `judge`."""

    def __init__(self, entry: Entry, known: Known) -> None:
        body = entry["body"]
        self.shared: Said = body["shared"]
        self.sender: Said = body["sender"]
        self.recipient: Said = body.get("recipient") or {}
        self.entry, self.known = entry, known
        head, self.claims = read_token(self.shared["jws"])
        self.kid, self.message = head["kid"], self.shared["message"]
        self.not_kept: Said = self.shared.get("notKept", {})
        self.now = self.shared["nowMilliseconds"] / 1000
        self.profile = known.profile(self.shared["judgedBy"]["profile"])
        self.rules = known.policies(self.shared["judgedBy"]["policySet"])
        self.verdict = Verdict()
        self.chain: dict[str, Any] = {}

    def judge(self) -> Verdict:
        """Return the verdict."""
        try:
            self._judge()
        except Refused as why:
            self.verdict.verdict, self.verdict.code = "denied", why.code
            if why.violation:
                self.verdict.violation = {"severity": why.violation, "rule": why.code}
        return self.verdict

    def _judge(self) -> None:
        self._check_sender()  # 1
        self._vouch()  # 2 and 3
        self._weigh()
        one = self._reach()  # 4
        self._check_response()  # 5
        level = self._demanded(one) if one else ""  # 6
        self._extend_chain()  # 7
        if "audience" in self.recipient:
            self._hear()
        else:
            own = self._of_recipient(one, self.claims["aud"][1], level) if one else {}
            self._conclude(self._decide(own, self.verdict.sensitivity), own)  # 8

    def _check_sender(self) -> None:
        if "agent" not in self.sender:
            raise Refused("identity.unknown")
        status = self.sender["agent"].get("status", "active")
        if status != "active":
            raise Refused("identity.revoked" if status == "revoked" else "identity.not_active")

    def _vouch(self) -> None:
        """Find the attestation of the key that signed, and the score with it."""
        jti = self.entry.get("attestation")
        if not jti:
            doubtful = self.sender.get("attestation")
            if doubtful is None:
                raise Refused("attestation.missing")
            raise Refused(doubtful["fault"] or "attestation.expired")
        found = self.known.attestation(jti)
        if found["jkt"] != self.kid:
            raise Refused("attestation.missing")
        if not found["issuedAt"] <= self.now < found["expiresAt"]:
            raise Refused("attestation.expired")
        self.verdict.attestation, self.verdict.issuer = jti, found["issuer"]
        self.verdict.level = found["level"]
        self.inputs = self.known.inputs(self.sender["inputs"])
        if (self.inputs["level"], self.inputs["expires_at"]) != (
            found["level"],
            found["expiresAt"],
        ):
            self.inputs |= {
                "level": found["level"],
                "issued_at": found["issuedAt"],
                "expires_at": found["expiresAt"],
                "attested_capabilities": sorted(found["capabilities"]),
            }
        self.verdict.score = scores.score(self.inputs, self.now, self.profile)

    def _weigh(self) -> None:
        """Find the sensitivity: the sender's own, and with recipient, request and chain."""
        floor = self.sender["agent"].get("sensitivityFloor", "public")
        self.own = highest(self.message.get("sensitivity"), floor)
        agent, cause = self.recipient.get("agent"), self.shared.get("cause")
        self.verdict.sensitivity = highest(
            self.own,
            agent.get("sensitivityFloor", "public") if agent else None,
            self.shared["request"]["sensitivity"] if "request" in self.shared else None,
            cause["highestSensitivity"] if cause and cause.get("received", True) else None,
        )
        self.chain = self.own_chain = self._link(self.verdict.level, self.verdict.score, 1)

    def _link(self, level: str, score: int, depth: int) -> dict[str, Any]:
        return {
            "lowestLevel": level,
            "lowestScore": score,
            "depth": depth,
            "highestSensitivity": self.verdict.sensitivity,
        }

    def _reach(self) -> Said | None:
        target = self.claims["aud"][1]
        if self.message["type"] == "broadcast":
            return None
        if target == self.claims["iss"]:
            raise Refused("recipient.self")
        if self.recipient.get("agent", {"status": "unknown"}).get("status", "active") != "active":
            raise Refused("recipient.unavailable")
        self._check_takes(self.recipient)
        return self.recipient

    def _check_takes(self, one: Said) -> None:
        agent = one["agent"]
        if one.get("full"):
            raise Refused("flow.recipient_full")
        if is_below(self.verdict.level, agent.get("minimumLevel", "")):
            raise Refused("trust.level")
        if self.verdict.score < agent.get("minimumScore", 0):
            raise Refused("trust.score")

    def _check_response(self) -> None:
        if self.message["type"] != "response":
            return
        request, target = self.shared.get("request"), self.claims["aud"][1]
        if request is None or not (
            request.get("sender", target) == target
            and request.get("target", self.claims["iss"]) == self.claims["iss"]
            and "requestId" not in request
            and not request.get("answered")
        ):
            raise Refused("recipient.no_request")
        if is_below(self.verdict.level, request.get("requiresTrust", "")):
            raise Refused("trust.level")

    def _demanded(self, one: Said) -> str:
        """Return the level of a recipient for this envelope."""
        inputs = self.known.inputs(one["inputs"]) if "inputs" in one else one
        if "level" not in inputs:
            return ""
        level = inputs["level"] or ""
        if "requiredCapabilities" in {**self.message, **self.not_kept}:
            if "covering" not in one:
                raise Refused("attestation.capability")
            level = one["covering"]
            if level not in LEVELS:
                level = self.known.attestation(level)["level"]
        if is_below(level, self.message.get("requiresTrust", "")):
            raise Refused("trust.level")
        return str(level)

    def _extend_chain(self) -> None:
        if "cause" not in self.claims:
            return
        cause = self.shared.get("cause")
        if cause is None or not cause.get("received", True):
            raise Refused("trust.cause", "medium")
        if cause["depth"] >= DEEPEST_CHAIN:
            raise Refused("trust.cause")
        self.chain = self._link(
            min(cause["lowestLevel"], self.verdict.level, key=LEVELS.index),
            min(cause["lowestScore"], self.verdict.score),
            cause["depth"] + 1,
        )

    def _hear(self) -> None:
        """Judge a broadcast for each group of hearers that are alike."""
        left_out: Counter[str] = Counter()
        refusals: dict[str, tuple[Outcome | None, dict[str, Any]]] = {}
        heard: list[Outcome] = []
        sensitivity = ""
        for group in self.recipient["audience"]:
            for agent in group["agents"]:
                code, outcome, values = self._hear_one(group, agent)
                if code:
                    left_out[code] += 1
                    refusals.setdefault(code, (outcome, values))
                    continue
                assert outcome is not None
                heard.append(outcome)
                self.verdict.hearers.append(agent)
                sensitivity = highest(sensitivity or None, values["data.sensitivity"])
        self.verdict.leftOut = dict(left_out)
        if heard:
            self._conclude(heard[0], {})
            self.verdict.sensitivity = sensitivity
            self.verdict.matched = once(m for outcome in heard for m in said(outcome.matched))
            self.verdict.monitored = once(m for outcome in heard for m in said(outcome.monitored))
        else:
            self._conclude_unheard(left_out, refusals)

    def _hear_one(self, group: Said, agent: str) -> tuple[str, Outcome | None, dict[str, Any]]:
        try:
            self._check_takes(group)
            level = self._demanded(group)
        except Refused as why:
            return why.code, None, {}
        values = self._of_recipient(group, agent, level)
        floor = group["agent"].get("sensitivityFloor", "public")
        values["data.sensitivity"] = highest(self.verdict.sensitivity, floor)
        outcome = self._decide(values, values["data.sensitivity"])
        return ("" if outcome.action == "allow" else outcome.code), outcome, values

    def _conclude_unheard(self, left_out: Counter[str], refusals: dict[str, Any]) -> None:
        code = max(refusals, key=left_out.__getitem__)
        outcome, values = refusals[code]
        if outcome is None:
            raise Refused(code)
        self.verdict.sensitivity = values["data.sensitivity"]
        self._conclude(outcome, values)

    def _of_recipient(self, one: Said, usual_id: str, level: str) -> dict[str, Any]:
        agent = one["agent"]
        values: dict[str, Any] = {
            "recipient.id": agent.get("id", usual_id),
            "recipient.organisation": agent["organisation"],
            "recipient.tags": agent.get("tags", []),
        }
        if "inputs" in one:
            inputs = self.known.inputs(one["inputs"])
            values["recipient.capabilities"] = inputs["attested_capabilities"]
            values["recipient.key_algorithm"] = inputs["key_algorithm"]
            values["recipient.score"] = scores.score(inputs, self.now, self.profile)
        elif "level" in one:
            values["recipient.capabilities"] = one.get("capabilities")
            values["recipient.key_algorithm"] = one.get("keyAlgorithm")
        return values | ({"recipient.level": level} if level else {})

    def _decide(self, own: Said, sensitivity: str) -> Outcome:
        values = {**self._values(), **own, "data.sensitivity": sensitivity}
        return policies.decide(self.rules, values, self._is_over)

    def _is_over(self, rule: Rule) -> bool:
        count = self.sender.get("counts", {}).get(f"{rule['policy']}/{rule['name']}", 0)
        return bool(count >= rule["throttle"]["limit"])

    def _values(self) -> dict[str, Any]:
        """Return the values of the fields that rules may use, except the recipient's."""
        agent, message = self.sender["agent"], self.message
        age = max(0, int(self.now) - self.claims["iat"])
        values: dict[str, Any] = {
            "sender.id": agent.get("id", self.claims["iss"]),
            "sender.level": self.verdict.level,
            "sender.score": self.verdict.score,
            "sender.capabilities": self.inputs["attested_capabilities"],
            "sender.organisation": agent["organisation"],
            "sender.tags": agent.get("tags", []),
            "sender.key_algorithm": self.inputs["key_algorithm"],
            "message.type": message["type"],
            "message.size": message["size"],
            "message.required_capabilities": message.get("requiredCapabilities", []),
            "message.allowed_tools": message.get("allowedTools", []),
            "message.age": age,
            "time.now": self.now,
            **self._of_chain(self.chain),
            **self.sender.get("rates", {}),
        }
        if "maxLifespanSeconds" in message:
            values["message.lifespan_exceeded"] = age > message["maxLifespanSeconds"]
        marked = self.shared.get("payload", {})
        values |= {name: Marked(value["holds"]) for name, value in marked.items()}
        cuts = {f: self.not_kept.get(name, {}) for name, f in FIELDS_OF_LISTS.items()}
        return values | {f: Marked(cut["holds"]) for f, cut in cuts.items() if "holds" in cut}

    def _of_chain(self, chain: Said) -> dict[str, Any]:
        return {
            "chain.lowest_level": chain["lowestLevel"],
            "chain.lowest_score": chain["lowestScore"],
            "chain.depth": chain["depth"],
        }

    def _conclude(self, outcome: Outcome, own: Said) -> None:
        verdict = self.verdict
        verdict.matched, verdict.monitored = said(outcome.matched), said(outcome.monitored)
        if outcome.rule is not None:
            verdict.policy, verdict.rule = outcome.rule["policy"], outcome.rule["name"]
        if outcome.action != "allow":
            verdict.verdict, verdict.code = "denied", outcome.code
            verdict.violation = next(self._blame(outcome, own), None)

    def _blame(self, outcome: Outcome, own: Said) -> Iterator[Said]:
        """Yield the rules that deny what the sender alone brought, and look at nothing else."""
        values = {**self._values(), **own, "data.sensitivity": self.own}
        values |= self._of_chain(self.own_chain)
        again = policies.decide(self.rules, values, lambda rule: False)
        others = NOT_CHOSEN.get(self.message["type"], ())
        for rule in again.matched:
            chosen = not any(c["field"].startswith(others) for c in rule["conditions"])
            if rule["action"] == "deny" and rule in outcome.matched and chosen:
                yield {"severity": rule["severity"], "rule": rule["name"]}


def said(rules: list[Rule]) -> list[Said]:
    """Return rules as the member `matched` has them."""
    return [
        {"policy": r["policy"], "rule": r["name"], "action": r["action"], "severity": r["severity"]}
        for r in rules
    ]


def once(matches: Iterator[Said]) -> list[Said]:
    """Return each match once, in order."""
    found: list[Said] = []
    for match in matches:
        if match not in found:
            found.append(match)
    return found


def highest(*levels: str | None) -> str:
    """Return the highest sensitivity of those that are given."""
    return max((level for level in levels if level is not None), key=SENSITIVITIES.index)


def is_below(level: str, demanded: str) -> bool:
    """Return whether a level ("" for none) is lower than what is demanded ("" for nothing)."""
    return bool(demanded) and (not level or LEVELS.index(level) < LEVELS.index(demanded))
