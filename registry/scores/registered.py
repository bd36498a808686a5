"""The inputs of scores that change only when the registry's epoch moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from atp.judging.facts import AttestationFacts
from registry.agents.models import Agent, AgentKey
from registry.attestations.models import Attestation

__all__ = ["Member", "RegisteredAgents"]

ANCESTORS_MAX = 8  # generations above a spawned agent; a deeper one gets score 0


@dataclass(frozen=True, slots=True)
class Member:
    """The members of an agent's row on which its score depends."""

    id: str
    parent: str | None
    organisation: int
    created_at: datetime
    status: str
    declared: tuple[str, ...]


class RegisteredAgents:
    """A cache of agents with their keys and attestations; missing ones cost one query a table.

    The owner of a cache must drop it when the registry's epoch moves.
    """

    def __init__(self) -> None:
        self._agents: dict[str, Member | None] = {}
        self._keys: dict[str, list[tuple[str, str]]] = {}
        self._attestations: dict[str, list[tuple[int, AttestationFacts]]] = {}

    def family(self, agent_ids: Collection[str]) -> dict[str, Member]:
        """Return by id these agents and their ancestors; unknown ids are left out."""
        found: dict[str, Member] = {}
        wanted = set(agent_ids)
        for _ in range(ANCESTORS_MAX):
            self._load(wanted - self._agents.keys())
            found |= {agent_id: m for agent_id in wanted if (m := self._agents[agent_id])}
            wanted = {m.parent for m in found.values() if m.parent} - found.keys()
            if not wanted:
                break
        return found

    def keys(self, agent_id: str) -> list[tuple[str, str]]:
        """Return (thumbprint, algorithm) of the agent's active keys, newest first.

        Call `family` before: an agent that it has not loaded has none here.
        """
        return self._keys.get(agent_id, [])

    def attestations(self, agent_id: str) -> list[tuple[int, AttestationFacts]]:
        """Return (issuer id, attestation) of those neither revoked nor unreadable.

        Dates and the issuer's standing are not checked. Call `family` before.
        """
        return self._attestations.get(agent_id, [])

    def _load(self, missing: set[str]) -> None:
        if not missing:
            return
        self._load_keys(missing)
        self._load_attestations(missing)
        agents: dict[str, Member | None] = dict.fromkeys(missing)
        for agent_id, parent, organisation, created_at, status, declared in Agent.objects.filter(
            id__in=missing
        ).values_list(
            "id", "parent_id", "organisation_id", "created_at", "status", "declared_capabilities"
        ):
            agents[agent_id] = Member(
                agent_id, parent, organisation, created_at, status, tuple(declared)
            )
        self._agents |= agents  # last: a thread that finds an agent must find its keys too

    def _load_keys(self, missing: set[str]) -> None:
        keys: dict[str, list[tuple[str, str]]] = defaultdict(list)
        active = AgentKey.objects.filter(agent_id__in=missing, status=AgentKey.Status.ACTIVE)
        for agent_id, kid, algorithm in active.order_by("-approved_at", "kid").values_list(
            "agent_id", "kid", "algorithm"
        ):
            keys[agent_id].append((kid, algorithm))
        self._keys |= keys

    def _load_attestations(self, missing: set[str]) -> None:
        rows = Attestation.objects.filter(
            agent_id__in=missing, revoked_at=None, unreadable_reason=""
        ).values_list(
            "agent_id", "jti", "issuer_id", "level", "capabilities", "jkt", "issued_at",
            "expires_at",
        )  # fmt: skip
        found: dict[str, list[tuple[int, AttestationFacts]]] = defaultdict(list)
        for agent_id, jti, issuer, level, capabilities, jkt, issued_at, expires_at in rows:
            facts = AttestationFacts(
                jti=jti,
                issuer=str(issuer),
                level=level,
                capabilities=frozenset(capabilities),
                jkt=jkt,
                issued_at=int(issued_at.timestamp()),
                expires_at=int(expires_at.timestamp()),
            )
            found[agent_id].append((issuer, facts))
        self._attestations |= found
