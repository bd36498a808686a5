"""`manage.py rotate_hub_key`: a new key for the hub to prove itself by."""

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
The hub gets a new {purpose} key at once, on all nodes. The old one names it as its successor, so
agents go on connecting with what they know, and signs nothing more."""
COMPROMISED = """\
The hub gets a new {purpose} key at once, on all nodes, and the old one vouches for nothing. Agents
that learnt the old one refuse to connect until they have enrolled again: that is what keeps them
from whoever has it."""


class Command(BaseCommand):
    help = (
        "Replace a key of the hub. Former ones stay listed in GET /api/v1/hub to verify what they "
        "signed; the rotation is entered in the trail."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("purpose", choices=HubKey.Purpose.values, help="which key")
        parser.add_argument("--reason", required=True, help="stands in the trail for good")
        parser.add_argument(
            "--compromised",
            action="store_true",
            help="use where another person may have the old key: it does not name the new one",
        )
        add_confirmation(parser)

    def handle(self, *args: Any, **options: Any) -> None:
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
