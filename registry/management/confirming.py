"""Asking before a command does what can't be undone."""

from __future__ import annotations

import sys

from django.core.management.base import BaseCommand, CommandError, CommandParser


def add_confirmation(parser: CommandParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def confirm(command: BaseCommand, warning: str, *, yes: bool) -> None:
    """Say what will happen and go on only with consent; raises `CommandError` without."""
    if yes:
        return
    command.stdout.write(warning)
    if not sys.stdin.isatty():
        raise CommandError("This terminal can't ask for confirmation: add --yes to go on.")
    if input("Go on? Type yes: ").strip().lower() != "yes":
        raise CommandError("Nothing was changed.")
