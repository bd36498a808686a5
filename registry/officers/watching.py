"""Enters every change of an account, a group, a password or an API token, wherever it is made.

These rows are changed by Django's own pages and commands, by the shell and by `loaddata`. So this
module listens to Django's signals; nothing else of the hub does. A change within a
`registry_change` is entered with it, once for each row. Any other change is the operator's.

Not seen: `QuerySet.update`, `bulk_create` and SQL, which send no signals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import identify_hasher
from django.contrib.auth.models import Group
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from registry.change import acting, registry_change
from registry.officers.account_states import (
    UNSAID,
    State,
    family_of,
    members_of,
    state_of,
    subject_of,
)
from registry.officers.models import ApiToken, Person
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

_BEFORE = "_entered_before"  # the attribute of a row between two signals about it


class WatchedRow:
    """What happens to one row within one change."""

    def __init__(self, model: Any, before: Any) -> None:
        self._model = model
        self._pk = None if before is None else before.pk
        self._before = before
        self._state: State | None = None if before is None else state_of(before)
        self._deleted: EntryDraft | None = None
        self._is_upgrade = False

    @property
    def key(self) -> tuple[Any, Any]:
        """What tells the row from others."""
        return self._model, self._pk

    def note_saved(self, row: Any, update_fields: Any) -> None:
        """Note that the row was saved; `update_fields` are the columns, `None` for all."""
        self._pk = row.pk
        stored = getattr(self._before, "password", "")
        self._is_upgrade = update_fields is not None and (
            set(update_fields) == {"password"} and row._password is None and _is_out_of_date(stored)
        )

    def note_deletion(self) -> None:
        """Make the entry about the row's deletion, while its rows of other tables exist."""
        if self._state is not None:
            said = {"before": {**self._state, **members_of(self._before)}}
            self._deleted = _draft(self._before, "deleted", said)

    def join(self, later: Self) -> None:
        """Take in a later change of the same row: the first `before` stays."""
        self._deleted = later._deleted or self._deleted
        self._is_upgrade = self._is_upgrade and later._is_upgrade

    def drafts(self) -> Sequence[EntryDraft]:
        """Return the entries about the row: at most one, and one about its password."""
        if self._deleted is not None:
            return [self._deleted] if self._state is not None else []
        row = _stored(self._model, self._pk)
        if row is None:
            return []
        if self._state is None:
            event = "issued" if isinstance(row, ApiToken) else "created"
            return [_draft(row, event, {"after": state_of(row)})]
        return [*self._changed(row, self._state), *self._password_changed(row)]

    def _changed(self, row: Any, before: State) -> Iterable[EntryDraft]:
        after = state_of(row)
        unsaid = [
            name for name in UNSAID if getattr(row, name, None) != getattr(self._before, name, None)
        ]
        if unsaid or _without_password(after) != _without_password(before):
            said = {"before": before, "after": after}
            yield _draft(
                row, _event(before, after), {**said, "alsoChanged": unsaid} if unsaid else said
            )

    def _password_changed(self, row: Any) -> Iterable[EntryDraft]:
        if (
            getattr(row, "password", "") == getattr(self._before, "password", "")
            or self._is_upgrade
        ):
            return
        said = {"before": _password(self._state), "after": _password(state_of(row))}
        yield EntryDraft(Kind.OFFICER_PASSWORD_CHANGED, subject=subject_of(row), shared=said)


def watch() -> None:
    """Listen to the signals; call it once, when Django's apps are ready."""
    users = get_user_model()
    for model in (users, Group, ApiToken):
        pre_save.connect(_before_save, sender=model, dispatch_uid=f"entered {model}")
        post_save.connect(_after_save, sender=model, dispatch_uid=f"entered {model}")
        pre_delete.connect(_before_deletion, sender=model, dispatch_uid=f"entered {model}")
        post_delete.connect(_after_deletion, sender=model, dispatch_uid=f"entered {model}")
    for through in (
        users.groups.through,
        users.user_permissions.through,
        Group.permissions.through,
    ):
        m2m_changed.connect(_rights_changed, sender=through, dispatch_uid=f"entered {through}")


def _before_save(sender: Any, instance: Any, update_fields: Any = None, **_: Any) -> None:
    if update_fields is not None and set(update_fields) <= {"last_login"}:
        return
    setattr(instance, _BEFORE, WatchedRow(sender, _stored(sender, instance.pk)))


def _after_save(sender: Any, instance: Any, update_fields: Any = None, **_: Any) -> None:
    seen = instance.__dict__.pop(_BEFORE, None)
    if seen is None:
        return
    seen.note_saved(instance, update_fields)
    with registry_change(acting(), moves_epoch=False) as change:
        if isinstance(instance, get_user_model()):
            Person.objects.get_or_create(account_id=instance.pk)
        change.enter_at_end(seen.key, seen)


def _before_deletion(sender: Any, instance: Any, **_: Any) -> None:
    seen = WatchedRow(sender, _stored(sender, instance.pk))
    seen.note_deletion()
    setattr(instance, _BEFORE, seen)


def _after_deletion(sender: Any, instance: Any, **_: Any) -> None:
    _enter([instance.__dict__.pop(_BEFORE)])


def _rights_changed(
    sender: Any, instance: Any, action: str, reverse: bool, model: Any, pk_set: Any, **_: Any
) -> None:
    """Keep the rights before a change of a group's or an account's relations; enter them after."""
    if action.startswith("pre_"):
        rows = _holders(sender, instance, model, pk_set) if reverse else [instance]
        seen = [WatchedRow(type(row), _stored(type(row), row.pk)) for row in rows]
        setattr(instance, _BEFORE, seen)
    else:
        _enter(instance.__dict__.pop(_BEFORE, ()))


def _holders(sender: Any, instance: Any, model: Any, pk_set: Any) -> Sequence[Any]:
    """Return the accounts or groups whose rights change from the other side of the relation."""
    if pk_set is not None:
        return list(model._default_manager.filter(pk__in=pk_set))
    source, target = (
        next(f for f in sender._meta.fields if f.related_model is kind)
        for kind in (type(instance), model)
    )
    held = sender._default_manager.filter(**{source.attname: instance.pk})
    return list(model._default_manager.filter(pk__in=held.values(target.attname)))


def _enter(seen: Iterable[WatchedRow]) -> None:
    with registry_change(acting(), moves_epoch=False) as change:
        for each in seen:
            change.enter_at_end(each.key, each)


def _stored(model: Any, pk: Any) -> Any:
    return None if pk is None else model._default_manager.filter(pk=pk).first()


def _is_out_of_date(password: str) -> bool:
    """Return whether Django hashes the same password anew at the next sign-in."""
    try:
        return bool(identify_hasher(password).must_update(password))
    except ValueError:
        return False


def _event(before: State, after: State) -> str:
    revoked = after.get("revokedAt") is not None and before.get("revokedAt") is None
    return "revoked" if revoked else "changed"


def _without_password(state: State) -> State:
    """Return the state without what has an entry of its own."""
    return {name: value for name, value in state.items() if name != "password"}


def _password(state: State | None) -> State:
    return {"password": (state or {}).get("password")}


def _draft(row: Any, event: str, said: State) -> EntryDraft:
    return EntryDraft(Kind(f"{family_of(row)}.{event}"), subject=subject_of(row), shared=said)
