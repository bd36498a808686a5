"""The operator's actions on accounts. `registry.officers.watching` enters what they change."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model

from registry.change import registry_change
from registry.officers.actor import Actor


def create_superuser(name: str, *, email: str = "", password: str | None, actor: Actor) -> Any:
    """Make an account with all rights. Without a password, it can't be used to sign in yet."""
    users = get_user_model()._default_manager
    with registry_change(actor, moves_epoch=False):
        return users.create_superuser(name, email=email, password=password)


def set_password(account: Any, password: str, *, actor: Actor) -> None:
    """Set the password of an account, which ends its sessions."""
    with registry_change(actor, moves_epoch=False):
        account.set_password(password)
        account.save(update_fields=["password"])
