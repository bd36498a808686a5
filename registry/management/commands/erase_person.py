"""`manage.py erase_person`: forgets who was behind a pseudonym."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from atp.errors import ATPError
from registry.management.confirming import add_confirmation, confirm
from registry.officers.actor import Actor
from registry.officers.people import erase_person


class Command(BaseCommand):
    """The command `manage.py erase_person`."""

    help = "Forget name, e-mail address and pseudonym of a deactivated account. Entries stand."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options of the command."""
        parser.add_argument("username", help="whose")
        parser.add_argument("--reason", required=True, help="why; kept in the trail")
        add_confirmation(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask, then erase; raises `CommandError`."""
        accounts = get_user_model()._default_manager.filter(username=options["username"])
        account = accounts.first()
        if account is None:
            raise CommandError(f"There is no account {options['username']}.")
        warning = (
            f"Nobody can find out any more what {account.get_username()} did. This can't be undone."
        )
        confirm(self, warning, yes=options["yes"])
        try:
            pseudonym = erase_person(account.pk, actor=Actor.operator(), reason=options["reason"])
        except ATPError as refusal:
            raise CommandError(f"Nothing was changed: {refusal.detail}.") from refusal
        self.stdout.write(f"{pseudonym} is an erased person now.")
