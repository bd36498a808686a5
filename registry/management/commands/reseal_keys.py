"""`manage.py reseal_keys`: seal the hub's private keys with a new key-encryption key."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry.hub.keyring import SealBroken
from registry.management.confirming import add_confirmation, confirm
from registry.officers.actor import Actor
from registry.rotation import reseal_keys

WARNING = """\
This command seals all private keys that the hub holds with ATP_KEY_ENCRYPTION_KEY, all or none.
Before that, restart every node and worker with the new key as ATP_KEY_ENCRYPTION_KEY and the old
key as ATP_KEY_ENCRYPTION_KEY_OLD. A process that does not have the new key can no longer sign."""


class Command(BaseCommand):
    """Calls `registry.rotation.reseal_keys` as the operator."""

    help = (
        "Seal with ATP_KEY_ENCRYPTION_KEY the private keys that are still sealed with "
        "ATP_KEY_ENCRYPTION_KEY_OLD. A second run changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options of the command."""
        add_confirmation(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Encrypt the keys again; raises `CommandError` if one can't be decrypted."""
        confirm(self, WARNING, yes=options["yes"])
        try:
            done = reseal_keys(actor=Actor.operator())
        except SealBroken as exc:
            raise CommandError(f"Nothing was changed: {exc}") from exc
        self.stdout.write(
            f"{done.changed} of {done.held} keys were sealed with ATP_KEY_ENCRYPTION_KEY."
            if done.changed
            else f"Nothing to do: all {done.held} keys are sealed with ATP_KEY_ENCRYPTION_KEY."
        )
        self.stdout.write("Remove ATP_KEY_ENCRYPTION_KEY_OLD at the next restart.")
