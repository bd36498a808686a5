"""`manage.py reseal_keys`: put the private keys that the hub holds under another key."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry.hub.keyring import SealBroken
from registry.management.confirming import add_confirmation, confirm
from registry.officers.actor import Actor
from registry.rotation import reseal_keys

WARNING = """\
All private keys that the hub holds are sealed with ATP_KEY_ENCRYPTION_KEY, all or none of them.
Every node and worker must have been started with that key by now, and with the one before as
ATP_KEY_ENCRYPTION_KEY_OLD: one that has not can't sign any more."""


class Command(BaseCommand):
    help = (
        "Seal the private keys that the hub holds with ATP_KEY_ENCRYPTION_KEY, where they still "
        "are with ATP_KEY_ENCRYPTION_KEY_OLD. A second run changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_confirmation(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        confirm(self, WARNING, yes=options["yes"])
        try:
            done = reseal_keys(actor=Actor.operator())
        except SealBroken as exc:
            raise CommandError(f"Nothing was changed: {exc}") from exc
        self.stdout.write(
            f"{done.changed} of {done.held} keys were sealed anew."
            if done.changed
            else f"Nothing to do: all {done.held} keys are sealed with ATP_KEY_ENCRYPTION_KEY."
        )
        self.stdout.write("ATP_KEY_ENCRYPTION_KEY_OLD can be taken away at the next restart.")
