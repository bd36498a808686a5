"""`manage.py changepassword`: Django's command, with an entry in the trail."""

from __future__ import annotations

import getpass
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry.officers.accounts import set_password
from registry.officers.actor import Actor


class Command(BaseCommand):
    """The command `manage.py changepassword`."""

    help = "Give an account another password. The trail says that the operator did."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options of the command."""
        parser.add_argument("username", help="whose password")

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask for a password twice and set it; raises `CommandError`."""
        users = get_user_model()._default_manager
        account = users.filter(username=options["username"]).first()
        if account is None:
            raise CommandError(f"There is no account {options['username']}.")
        set_password(account, ask_password(account), actor=Actor.operator())
        self.stdout.write("The password is changed.")


def ask_password(account: Any) -> str:
    """A password typed twice that the hub's rules allow; raises `CommandError` otherwise."""
    password = getpass.getpass("New password: ")
    if password != getpass.getpass("The same again: "):
        raise CommandError("Those were two passwords. Nothing was changed.")
    try:
        validate_password(password, account)
    except ValidationError as exc:
        raise CommandError(" ".join(exc.messages)) from exc
    return password
