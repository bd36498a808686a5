"""`manage.py createsuperuser`: Django's command, with an entry in the trail."""

from __future__ import annotations

import os
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry.management.commands.changepassword import ask_password
from registry.officers.accounts import create_superuser
from registry.officers.actor import Actor


class Command(BaseCommand):
    """The command `manage.py createsuperuser`."""

    help = "Make an account that may do everything. The trail says that the operator did."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options of the command."""
        parser.add_argument("--username", default=os.environ.get("DJANGO_SUPERUSER_USERNAME"))
        parser.add_argument("--email", default=os.environ.get("DJANGO_SUPERUSER_EMAIL", ""))
        parser.add_argument(
            "--noinput", "--no-input", action="store_false", dest="interactive",
            help="ask nothing: the password is DJANGO_SUPERUSER_PASSWORD, or there is none",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the account; raises `CommandError` if that is impossible."""
        name, email = options["username"], options["email"]
        if not name and options["interactive"]:
            name = input("Name of the account: ").strip()
        account = _unsaved(name, email)
        if options["interactive"]:
            password: str | None = ask_password(account)
        else:
            password = os.environ.get("DJANGO_SUPERUSER_PASSWORD") or None
        create_superuser(name, email=email, password=password, actor=Actor.operator())
        self.stdout.write(f"The superuser {name} is made.")


def _unsaved(name: str | None, email: str) -> Any:
    """The account as it would be; raises `CommandError` where it can't be made."""
    if not name:
        raise CommandError("Give the account a name: --username.")
    account = get_user_model()(username=name, email=email)
    try:
        account.full_clean(exclude=["password"])
    except ValidationError as exc:
        raise CommandError(" ".join(exc.messages)) from exc
    return account
