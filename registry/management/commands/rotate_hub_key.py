"""`manage.py rotate_hub_key`: replace the key with which the hub proves itself."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from atp.errors import ATPError
from atp.trust.fingerprint import fingerprint
from registry.hub.keyring import SealBroken
from registry.hub.models import HubKey
from registry.management.confirming import add_confirmation, confirm
from registry.officers.actor import Actor
from registry.rotation import rotate_hub_key

PLANNED = """\
The hub gets a new {purpose} key at once, on all nodes. The old key names it as its successor and
never signs again. Agents that know the old key can still connect."""
COMPROMISED = """\
The hub gets a new {purpose} key at once, on all nodes. The old key does not name it as successor.
Agents that know the old key refuse to connect until they have enrolled again. That protects them
from a thief of the old key."""


class Command(BaseCommand):
    """Calls `registry.rotation.rotate_hub_key` as the operator."""

    help = (
        "Replace a key of the hub. GET /api/v1/hub still lists the old ones, so that their "
        "signatures can be verified. The rotation is entered in the trail."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options of the command."""
        parser.add_argument("purpose", choices=HubKey.Purpose.values, help="the key to replace")
        parser.add_argument("--reason", required=True, help="kept in the trail for good")
        parser.add_argument(
            "--compromised",
            action="store_true",
            help="use if another person may have the old key: it then does not name the new key",
        )
        add_confirmation(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Confirm, rotate the key and print both fingerprints; raises `CommandError`."""
        warning = COMPROMISED if options["compromised"] else PLANNED
        confirm(self, warning.format(purpose=options["purpose"]), yes=options["yes"])
        try:
            old, new = rotate_hub_key(
                HubKey.Purpose(options["purpose"]),
                reason=options["reason"],
                compromised=options["compromised"],
                actor=Actor.operator(),
            )
        except (ATPError, SealBroken) as exc:
            raise CommandError(str(exc)) from exc
        self.stdout.write(f"retired  {fingerprint(old.kid)}")
        self.stdout.write(f"current  {fingerprint(new.kid)}")
