"""Confirmation before a command does something that can't be undone."""

from __future__ import annotations

import sys

from django.core.management.base import BaseCommand, CommandError, CommandParser


def add_confirmation(parser: CommandParser) -> None:
    """Add the option `--yes`, which skips the question."""
    parser.add_argument("--yes", action="store_true", help="do not ask")


def confirm(command: BaseCommand, warning: str, *, yes: bool) -> None:
    """Print `warning` and ask whether to go on; return only if the answer is "yes".

    Raises `CommandError` if it is not, or if there is no terminal to ask. Asks nothing with `yes`.
    """
    if yes:
        return
    command.stdout.write(warning)
    if not sys.stdin.isatty():
        raise CommandError("The command can't ask without a terminal: add --yes to go on.")
    if input("Go on? Type yes: ").strip().lower() != "yes":
        raise CommandError("Nothing was changed.")
