"""Every write of decisions about many: chosen, begun, carried on row by row, ended.

A row is decided in the transaction that moves the position past it. So a worker that dies, or a
second one that runs at the same time, leaves out no row and decides none twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from atp.errors import ATPError
from registry.bulk.decisions import DECISIONS, DecisionKind, restored, stored
from registry.bulk.events import enqueue_decisions_on_commit
from registry.bulk.models import BulkDecision
from registry.change import ChangedMeanwhile, registry_change
from registry.officers.actor import Actor
from registry.scores.actions import ViolationAnnulled, ViolationClosed
from registry.storage.row_values import state_of

CHOICE_LIFE = timedelta(days=1)  # of a selection about which nothing was decided
_REFUSALS = (ATPError, ChangedMeanwhile, ViolationAnnulled, ViolationClosed)


class NotAllowed(ChangedMeanwhile):
    """The officer may not decide any more: the account or its rights have changed."""


def choose(name: str, ids: Iterable[Any], *, actor: Actor) -> BulkDecision:
    """Store which rows are chosen for the decision `name` of `DECISIONS`, with no limit.

    If the decision widens trust, the state of each row is stored too. Raises `ValueError` if the
    actor has no account: the rights of the account are read again for each row.
    """
    if actor.user_id is None:
        raise ValueError("only a person with an account decides about many")
    decision = DECISIONS[name]
    subjects = [(pk, "") for pk in ids]
    if decision.widens:
        states = {row.pk: state_of(row) for row in _rows(decision, [pk for pk, _ in subjects])}
        subjects = [(pk, states[pk]) for pk, _ in subjects if pk in states]
    with registry_change(actor, moves_epoch=False):
        old = datetime.now(UTC) - CHOICE_LIFE
        BulkDecision.objects.filter(begun_at=None, chosen_at__lt=old).delete()
        return BulkDecision.objects.create(
            decision=name, made_by_id=actor.user_id, subjects=subjects, total=len(subjects)
        )


def begin(bulk_id: int, values: Mapping[str, Any], *, actor: Actor) -> None:
    """Begin to carry out a decision with the values of its form.

    Raises `ChangedMeanwhile` if it has begun already.
    """
    with registry_change(actor, moves_epoch=False):
        begun = BulkDecision.objects.filter(pk=bulk_id, begun_at=None).update(
            values=stored(values), begun_at=datetime.now(UTC)
        )
        if not begun:
            raise ChangedMeanwhile("This decision has begun already.")
        enqueue_decisions_on_commit()


def carry_on(bulk_id: int, *, seconds: float) -> bool:
    """Carry out a decision for about so many seconds; return whether it has ended."""
    bulk = BulkDecision.objects.select_related("made_by").get(pk=bulk_id)
    decision, values = DECISIONS[bulk.decision], restored(bulk.values)
    actor = Actor.of_user(bulk.made_by)
    until = time.monotonic() + seconds
    while bulk.position < bulk.total and time.monotonic() < until:
        pk, state = bulk.subjects[bulk.position]
        try:
            _check_rights(bulk, decision)
            bulk.position = _decide(bulk, decision, pk, state, values, actor)
        except _REFUSALS as refusal:
            bulk.position = _note_refusal(bulk, pk, _why(refusal), actor)
    return bulk.position >= bulk.total


def unfinished() -> list[int]:
    """Return the decisions that have begun and not ended, the oldest first."""
    waiting = BulkDecision.objects.filter(begun_at__isnull=False, ended_at=None)
    return list(waiting.order_by("begun_at").values_list("pk", flat=True))


def _decide(
    bulk: BulkDecision,
    decision: DecisionKind,
    pk: Any,
    state: str,
    values: Mapping[str, Any],
    actor: Actor,
) -> int:
    """Decide about the row at the position unless that is done; return the new position."""
    with registry_change(actor, moves_epoch=decision.moves_epoch):
        row = _locked(bulk)
        if row.position == bulk.position:
            if state and state not in map(state_of, _rows(decision, [pk])):
                raise ChangedMeanwhile("It has changed since it was chosen; look at it again.")
            decision.act(pk, **values, actor=actor)
            row.done += 1
            _move_on(row)
    return row.position


def _note_refusal(bulk: BulkDecision, pk: Any, why: str, actor: Actor) -> int:
    with registry_change(actor, moves_epoch=False):
        row = _locked(bulk)
        if row.position == bulk.position:
            row.refusals.append([pk, why])
            _move_on(row)
    return row.position


def _move_on(row: BulkDecision) -> None:
    row.position += 1
    if row.position >= row.total:
        row.ended_at = datetime.now(UTC)
    row.save(update_fields=["position", "done", "refusals", "ended_at"])


def _locked(bulk: BulkDecision) -> BulkDecision:
    rows = BulkDecision.objects.select_for_update(of=("self",)).defer("subjects", "values")
    return rows.get(pk=bulk.pk)


def _check_rights(bulk: BulkDecision, decision: DecisionKind) -> None:
    """Raise `NotAllowed` if the officer may not decide now: read anew for each row."""
    officer = type(bulk.made_by)._default_manager.get(pk=bulk.made_by_id)
    if not officer.has_perm(decision.permission):
        raise NotAllowed("The officer who began it may not decide about it any more.")


def _why(refusal: Exception) -> str:
    if isinstance(refusal, ATPError):
        return refusal.detail or refusal.code
    if isinstance(refusal, ViolationAnnulled | ViolationClosed):
        return "Another officer has dealt with it already, or it does not exist."
    return str(refusal)


def _rows(decision: DecisionKind, ids: list[Any]) -> Iterable[Any]:
    return decision.model._default_manager.filter(pk__in=ids)
