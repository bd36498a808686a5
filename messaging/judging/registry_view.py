"""A cache of the registry, valid for one epoch.

The rows of a batch that the cache lacks are read with one query for each table. Dates are compared
with `now` at each use. The standing of issuers depends on dates, so it is read again every minute.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Mapping

from atp.judging.facts import AgentFacts, AttestationFacts, KeyFacts
from atp.judging.policy import PolicySet
from atp.judging.scoring import Profile, ScoreInputs
from atp.trust.keys import PublicKey
from atp.types import BROADCAST_TARGET
from registry.issuers.standing import issuer_standing
from registry.models import Agent, AgentKey, Attestation, Hub
from registry.policies.querysets import current_policy_set
from registry.scores.inputs import RegisteredAgents, attested_inputs, inputs_of
from registry.scores.querysets import current_profile, entered_inputs
from registry.storage.compiled import Compiled
from registry.storage.round_trips import Asked

LONGEST_SECONDS = 60.0
INPUTS_SECONDS = 1.0  # score inputs also depend on traffic, which does not move the epoch


def attestation_facts(row: Attestation, *, fault: str = "") -> AttestationFacts:
    """Return what a judgement reads of an attestation; one with a `fault` does not count."""
    return AttestationFacts(
        jti=row.jti,
        issuer=row.issuer.slug,
        level=row.level,
        capabilities=frozenset(row.capabilities),
        jkt=row.jkt,
        issued_at=int(row.issued_at.timestamp()),
        expires_at=int(row.expires_at.timestamp()),
        fault=fault,
    )


class RegistryView:
    """Agents, keys, attestations, policies and profile at one epoch."""

    def __init__(self, hub_id: str, epoch: int, now: float) -> None:
        self.hub_id = hub_id
        self.epoch = epoch
        self.made_at = now
        self.standing = issuer_standing(now)
        self.policy_set: PolicySet = current_policy_set()
        self.profile: Profile = current_profile()
        self._agents: dict[str, AgentFacts] = {}
        self._attestations: dict[str, list[AttestationFacts]] = {}
        self._keys: dict[str, KeyFacts] = {}
        self._inputs: dict[str, tuple[float, ScoreInputs]] = {}
        self._attested: dict[str, tuple[float, float, ScoreInputs]] = {}  # from, until, what
        self._entered: dict[str, tuple[int, ScoreInputs] | None] = {}
        self._registered = RegisteredAgents()

    def stands(self, hub_id: str, epoch: int, now: float) -> bool:
        """Return whether the view is of this hub and epoch, and not too old."""
        # `made_at` is in the future if the clock was set back, or if another lane is a bit ahead.
        timely = -INPUTS_SECONDS < now - self.made_at < LONGEST_SECONDS
        return (self.hub_id, self.epoch) == (hub_id, epoch) and timely

    def load(self, agents: Collection[str], kids: Collection[str]) -> None:
        """Read those of these agents and keys that the view does not have yet.

        Unknown ids are not cached, because invented ids could fill the memory.
        """
        if missing := set(agents) - self._agents.keys() - {BROADCAST_TARGET}:
            found = self._read_agents(missing)
            self._attestations.update(self._read_attestations(found.keys()))
            self._agents.update(
                found
            )  # last: other threads must not find an agent without attestations
        if unknown := set(kids) - self._keys.keys():
            self._load_keys(unknown)

    def agent(self, agent_id: str) -> AgentFacts | None:
        """Return what is known of a loaded agent, or `None`."""
        return self._agents.get(agent_id)

    def attestations(self, agent_id: str) -> list[AttestationFacts]:
        """Return the attestations of a loaded agent."""
        return self._attestations.get(agent_id, [])

    def key(self, kid: str) -> KeyFacts | None:
        """Return what is known of a loaded key, or `None`."""
        return self._keys.get(kid)

    def score_inputs(self, agents: Collection[str], now: float) -> dict[str, ScoreInputs]:
        """Return the score inputs of these agents, at most `INPUTS_SECONDS` old."""
        known = self._inputs
        old = [a for a in agents if a not in known or abs(now - known[a][0]) > INPUTS_SECONDS]
        for agent, inputs in inputs_of(
            old,
            now,
            profile=self.profile,
            standing=self.standing,
            registered=self._registered,
        ).items():
            self._inputs[agent] = (now, inputs)
        return {agent: self._inputs[agent][1] for agent in agents if agent in self._inputs}

    def audience_inputs(self, agents: Collection[str], now: float) -> dict[str, ScoreInputs]:
        """Return the inputs of hearers; conduct and violations only if rules use their scores."""
        if "recipient.score" in self.policy_set.uses:
            return self.score_inputs(agents, now)
        known = self._attested
        old = [a for a in agents if a not in known or not known[a][0] <= now < known[a][1]]
        for agent, (until, inputs) in attested_inputs(
            old, now, standing=self.standing, registered=self._registered
        ).items():
            known[agent] = (now, until, inputs)
        return {agent: known[agent][2] for agent in agents if agent in known}

    def load_entered(self, inputs: Mapping[str, ScoreInputs]) -> None:
        """Read which entries have the score inputs of these agents, as far as it is not known.

        A record says only what has changed since that entry. Violations are long, so it is read
        again if they have changed.
        """
        old = [agent for agent, now in inputs.items() if self._is_old(agent, now)]
        if old:
            found = entered_inputs(old)
            self._entered.update({agent: found.get(agent) for agent in old})

    def entered(self, agent: str) -> tuple[int, ScoreInputs] | None:
        """Return the entry with the agent's score inputs, and these; `None` if none is known."""
        return self._entered.get(agent)

    def _is_old(self, agent: str, now: ScoreInputs) -> bool:
        entered = self._entered.get(agent)
        if entered is None:
            return agent not in self._entered
        return bool(now.violations) and entered[1].violations != now.violations

    def forget_inputs(self, agents: Collection[str]) -> None:
        """Drop the inputs of these agents, which have new violations."""
        for agent in agents:
            self._inputs.pop(agent, None)

    def _read_agents(self, ids: set[str]) -> dict[str, AgentFacts]:
        tags = defaultdict(list)
        through = Agent.tags.through.objects.filter(agent_id__in=ids)
        for agent_id, name in through.values_list("agent_id", "tag__name"):
            tags[agent_id].append(name)
        found: dict[str, AgentFacts] = {}
        for agent in Agent.objects.filter(id__in=ids).select_related("organisation"):
            found[agent.id] = AgentFacts(
                id=agent.id,
                status=agent.status,
                organisation=agent.organisation.name,
                organisation_uid=agent.organisation.uid,
                tags=tuple(sorted(tags[agent.id])),
                sensitivity_floor=agent.sensitivity_floor,
                minimum_level=agent.minimum_level,
                minimum_score=agent.minimum_score,
            )
        return found

    def _read_attestations(self, ids: Collection[str]) -> dict[str, list[AttestationFacts]]:
        found: dict[str, list[AttestationFacts]] = {agent_id: [] for agent_id in ids}
        for row in Attestation.objects.filter(agent_id__in=ids).select_related("issuer"):
            found[row.agent_id].append(self._attestation(row))
        return found

    def _attestation(self, row: Attestation) -> AttestationFacts:
        fault = self.standing.get(row.issuer_id, "attestation.issuer")
        if row.revoked_at is not None:
            fault = "attestation.revoked"
        elif row.unreadable_reason:
            fault = "attestation.unreadable"
        return attestation_facts(row, fault=fault)

    def _load_keys(self, kids: set[str]) -> None:
        found: dict[str, KeyFacts] = {}
        for row in AgentKey.objects.filter(kid__in=kids):
            public = PublicKey.from_jwk(row.jwk, alg=row.algorithm)
            found[row.kid] = KeyFacts(agent=row.agent_id, status=row.status, public=public)
        self._keys.update(found)


_EPOCH = Compiled(lambda _: Hub.objects.filter(pk=Hub.SINGLETON_ID).values_list("hub_id", "epoch"))


def ask_epoch() -> Asked:
    """Ask for the registry's epoch; for a `current_view` that asks for other things besides."""
    return _EPOCH.ask()


class CurrentView:
    """The newest view of the registry that this process has made."""

    def __init__(self) -> None:
        self._view: RegistryView | None = None
        self._lock = threading.Lock()

    def at(self, now: float, asked: Asked | None = None) -> RegistryView:
        """The view at the database's epoch, as asked for by `ask_epoch`, or of this moment.

        Without another query when nothing has changed.
        """
        ((hub_id, epoch),) = (asked or ask_epoch()).rows()
        view = self._view
        if view is None or not view.stands(hub_id, epoch, now):
            with self._lock:  # of several batches that find it old, one reads
                view = self._view
                if view is None or not view.stands(hub_id, epoch, now):
                    view = self._view = RegistryView(hub_id, epoch, now)
        return view


current_view = CurrentView().at
