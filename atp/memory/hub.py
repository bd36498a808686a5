"""The in-process hub: the agents of one process, the facts about them, and their judge.

It has no database and no I/O. Its answers are those of a hub (`atp.memory.judge`), except for the
differences in docs/sdk.md#demo-mode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from atp.errors import RecipientUnavailable, SignatureDigest, SignatureInvalid, SignatureProvenance
from atp.judging.facts import RequestFacts
from atp.judging.judgement import Verdict
from atp.judging.scoring import ScoreInputs, score
from atp.memory import verification
from atp.memory.judge import Judge, Party, Ruling
from atp.memory.keys import DEMO_HUB_ID, DIRECTORY
from atp.memory.trust import (
    believed_agent,
    believed_attestations,
    believed_inputs,
    believed_level,
    unattested,
)
from atp.trust.envelope import Envelope, VerifiedEnvelope
from atp.types import BROADCAST_TARGET, IAgentIdentity, TrustLevel

__all__ = ["ConnectedAgent", "DemoHub"]

_UNREACHABLE: Final = Verdict("denied", RecipientUnavailable.code, "")
# docs/design/trust.md#the-score: envelopes that count, per counterparty and day
GOOD_PER_PAIR: Final = 10


@dataclass(frozen=True, slots=True)
class ConnectedAgent:
    """A connected agent. `deliver` gives it an envelope; `is_full` is whether it has no room.

    An agent that is only a queue has no identity.
    """

    agent: str
    deliver: Callable[[Envelope, Verdict], None]
    is_full: Callable[[], bool] = lambda: False
    identity: IAgentIdentity | None = None
    trust_level: TrustLevel | None = None


class DemoHub:
    """The agents of one process, and their latest messages.

    It is the `Registry` of its judge, and believes the claims of the agents.
    """

    def __init__(self) -> None:
        self.members: dict[str, ConnectedAgent] = {}
        self._judge = Judge(self)
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._good: Counter[str] = Counter()
        self._signed: Counter[tuple[str, bool]] = Counter()

    def find_repeat(self, sender: str, envelope: Envelope) -> Ruling | None:
        """Return the earlier ruling on this message, as `Judge.find_repeat` does."""
        return self._judge.find_repeat(sender, envelope)

    def rule(
        self, sender: str, envelope: Envelope, *, now: float, only: str | None = None
    ) -> Ruling:
        """Judge a message of `sender`; `only` limits a broadcast to one agent."""
        if only is not None and only not in self.members:
            return Ruling(_explained(_UNREACHABLE, only))
        audience = self._audience(sender, envelope, only)
        full = {agent for agent in audience if self.members[agent].is_full()}
        ruling = self._judge.rule(sender, envelope, audience=audience, now=now, full=full)
        for recipient in ruling.recipients:
            self._pairs[sender, recipient] += 1
            self._good[sender] += self._pairs[sender, recipient] <= GOOD_PER_PAIR
        return replace(ruling, verdict=_explained(ruling.verdict, envelope.target))

    def withdraw(self, sender: str, envelope: Envelope) -> None:
        """Forget that a message was accepted, because its delivery failed."""
        self._judge.withdraw(sender, envelope)

    def find_open_request(self, sender: str, message_id: str, *, now: float) -> RequestFacts | None:
        """Return a request without an answer, as `Judge.open_request` does."""
        return self._judge.open_request(sender, message_id, now=now)

    def standing(
        self, identity: IAgentIdentity, claimed: TrustLevel | None, *, now: float
    ) -> tuple[TrustLevel | None, int]:
        """Return level and score of an agent, from its claims and its conduct here."""
        inputs = self._inputs(identity, claimed, now=now)
        return believed_level(identity, claimed, now=now), score(inputs, now).total

    # The `Registry` of the judge

    def verify(self, envelope: Envelope, *, session_agent: str, now: float) -> VerifiedEnvelope:
        """Verify that `session_agent` sent the envelope; count good and bad signatures."""
        try:
            verified = verification.verify(
                envelope,
                session_agent=session_agent,
                hub_id=DEMO_HUB_ID,
                now=now,
                find_request=self._judge.find_request,
            )
        except (SignatureInvalid, SignatureDigest, SignatureProvenance):
            self._signed[session_agent, False] += 1
            raise
        if envelope.signature is not None:
            self._signed[session_agent, True] += 1
        return verified

    def sender(self, verified: VerifiedEnvelope, *, now: float) -> Party:
        """Return the facts about the sender, from its claims."""
        identity, claimed = self._claims_of(verified.envelope)
        party = self._party(identity, claimed, kid=verified.kid, now=now)
        if verification.is_demo(verified) and party.inputs.level is None:
            return replace(party, attestations=unattested(kid=verified.kid))
        return party

    def recipient(self, agent: str, *, now: float) -> Party | None:
        """Return the facts about a connected agent, from its claims."""
        member = self.members.get(agent)
        if member is None:
            return None
        identity = member.identity or IAgentIdentity(agent)
        return self._party(identity, member.trust_level, kid="", now=now)

    def _party(
        self, identity: IAgentIdentity, claimed: TrustLevel | None, *, kid: str, now: float
    ) -> Party:
        return Party(
            agent=believed_agent(identity),
            attestations=believed_attestations(identity, claimed, kid=kid),
            inputs=self._inputs(identity, claimed, now=now),
        )

    def _inputs(
        self, identity: IAgentIdentity, claimed: TrustLevel | None, *, now: float
    ) -> ScoreInputs:
        agent = identity.id
        key = DIRECTORY.find(agent)
        good, bad = self._signed[agent, True], self._signed[agent, False]
        return believed_inputs(
            identity,
            claimed,
            now=now,
            key_algorithm=None if key is None else key.alg,
            signatures=(good, good + bad),
            good_envelopes=self._good[agent],
        )

    def _claims_of(self, envelope: Envelope) -> tuple[IAgentIdentity, TrustLevel | None]:
        member = self.members.get(envelope.sender)
        if member is not None and member.identity is not None:
            return member.identity, member.trust_level
        identity = IAgentIdentity.from_wire(envelope.document["agentIdentity"])
        return identity, envelope.claimed_level

    def _audience(self, sender: str, envelope: Envelope, only: str | None) -> list[str]:
        """Return the connected agents that a message is for."""
        if only is None and envelope.target == BROADCAST_TARGET:
            return [agent for agent in self.members if agent != sender]
        target = only or envelope.target
        return [target] if target in self.members else []


def _explained(verdict: Verdict, target: str) -> Verdict:
    """Return the verdict; if the recipient is not connected, with the advice for this process."""
    if verdict.code != RecipientUnavailable.code:
        return verdict
    return replace(
        verdict,
        detail=f"no agent {target!r} is connected in this process. The in-memory"
        " transport reaches only agents of the same process: first create a second"
        " ATPClient with that id, call on_message('request', ...) and connect() on it."
        " For agents elsewhere, use a WebSocketTransport",
    )
