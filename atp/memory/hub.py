"""The in-process hub: the agents of one process, what is believed of them, and their judge.

It has no database and no I/O. Its answers are a hub's (`atp.memory.judge`), apart from what
docs/sdk.md lists under "Demo mode".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from atp.errors import RecipientUnavailable, SignatureDigest, SignatureInvalid, SignatureProvenance
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
    """A connected agent; `deliver` takes what is for it, `is_full` says whether it has room.

    A bare queue has no identity.
    """

    agent: str
    deliver: Callable[[Envelope, Verdict], None]
    is_full: Callable[[], bool] = lambda: False
    identity: IAgentIdentity | None = None
    trust_level: TrustLevel | None = None


class DemoHub:
    """The agents of one process, and what was said between them lately.

    It is the `Registry` of its own judge: it believes what the agents claim.
    """

    def __init__(self) -> None:
        self.members: dict[str, ConnectedAgent] = {}
        self._judge = Judge(self)
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._good: Counter[str] = Counter()
        self._signed: Counter[tuple[str, bool]] = Counter()

    def find_repeat(self, sender: str, envelope: Envelope) -> Ruling | None:
        """The ruling on the same message before, or that only its id is the same."""
        return self._judge.find_repeat(sender, envelope)

    def rule(
        self, sender: str, envelope: Envelope, *, now: float, only: str | None = None
    ) -> Ruling:
        """Judge a message that `sender` handed in; `only` narrows a broadcast to one agent."""
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
        """Forget that a message was accepted, because it could not be delivered after all."""
        self._judge.withdraw(sender, envelope)

    def standing(
        self, identity: IAgentIdentity, claimed: TrustLevel | None, *, now: float
    ) -> tuple[TrustLevel | None, int]:
        """Level and score of an agent by its own word and its conduct here."""
        inputs = self._inputs(identity, claimed, now=now)
        return believed_level(identity, claimed, now=now), score(inputs, now).total

    # What the judge asks

    def verify(self, envelope: Envelope, *, session_agent: str, now: float) -> VerifiedEnvelope:
        """The envelope as vouched for by its sender; counts good and bad signatures."""
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
        """The sender by its own word."""
        identity, claimed = self._claims_of(verified.envelope)
        party = self._party(identity, claimed, kid=verified.kid, now=now)
        if verification.is_demo(verified) and party.inputs.level is None:
            return replace(party, attestations=unattested(kid=verified.kid))
        return party

    def recipient(self, agent: str, *, now: float) -> Party | None:
        """A connected agent by its own word."""
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
        """The connected agents that a message is for."""
        if only is None and envelope.target == BROADCAST_TARGET:
            return [agent for agent in self.members if agent != sender]
        target = only or envelope.target
        return [target] if target in self.members else []


def _explained(verdict: Verdict, target: str) -> Verdict:
    """The verdict; where the recipient is missing, with what to do about it here."""
    if verdict.code != RecipientUnavailable.code:
        return verdict
    return replace(
        verdict,
        detail=f"no agent {target!r} is connected in this process. The in-memory"
        " transport reaches only agents of the same process: create a second ATPClient"
        " with that id, give it on_message('request', ...) and connect() it first; for"
        " agents elsewhere, use a WebSocketTransport",
    )
