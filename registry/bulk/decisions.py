"""The closed table of decisions that officers make about many rows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import models

from registry.agents.actions import resume_agent, revoke_agent, suspend_agent
from registry.agents.models import Agent
from registry.attestations.actions import issue_attestation
from registry.issuers.models import Issuer
from registry.scores.actions import annul_violation, close_violation
from registry.scores.models import Violation


@dataclass(frozen=True, slots=True)
class DecisionKind:
    """A decision about one row, as the bulk repeats it.

    `act` takes the primary key and the values of the form. One that `widens` trust is refused for
    a row that has changed since it was chosen; one that narrows it is not. `moves_epoch` is false
    if no judgement depends on it: then many rows do not have every batch judged again.
    """

    act: Callable[..., object]
    model: type[models.Model]
    words: str
    widens: bool = False
    moves_epoch: bool = True

    @property
    def noun(self) -> str:
        """Return the word for one row."""
        return str(self.model._meta.verbose_name)

    @property
    def permission(self) -> str:
        """Return the permission that the officer needs for each row."""
        return f"{self.model._meta.app_label}.change_{self.model._meta.model_name}"


class DecisionTable(Mapping[str, DecisionKind]):
    """The decisions by name. The app above adds its own when Django starts, and nobody later."""

    def __init__(self, kinds: Mapping[str, DecisionKind]) -> None:
        self._kinds = dict(kinds)

    def add(self, name: str, kind: DecisionKind) -> None:
        """Add a decision. Raises `ValueError` if another one has this name."""
        if self._kinds.setdefault(name, kind) != kind:
            raise ValueError(f"there is a decision {name} already")

    def __getitem__(self, name: str) -> DecisionKind:
        return self._kinds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)


_OWN = {
    "agent.attest": DecisionKind(issue_attestation, Agent, "Attest agents", widens=True),
    "agent.suspend": DecisionKind(suspend_agent, Agent, "Suspend agents"),
    "agent.resume": DecisionKind(resume_agent, Agent, "Resume agents", widens=True),
    "agent.revoke": DecisionKind(revoke_agent, Agent, "Revoke agents"),
    "violation.close": DecisionKind(close_violation, Violation, "Close violations"),
    "violation.annul": DecisionKind(annul_violation, Violation, "Annul violations"),
}
DECISIONS = DecisionTable(_OWN)


def stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a form as JSON."""
    return {name: _stored(value) for name, value in values.items()}


def restored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a form from JSON; the inverse of `stored`.

    Raises `Issuer.DoesNotExist` if it names an issuer that is gone.
    """
    found = dict(values)
    if "issuer" in found:
        found["issuer"] = Issuer.objects.get(pk=found["issuer"])
    if found.get("compromised_since"):
        found["compromised_since"] = datetime.fromisoformat(found["compromised_since"])
    return found


def _stored(value: Any) -> Any:
    if isinstance(value, models.Model):
        return value.pk
    return value.isoformat() if isinstance(value, datetime) else value
