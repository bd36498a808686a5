"""`manage.py hub`: serve the admin, the API and the agents' sockets in one process."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from importlib import import_module
from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter

from messaging.process.boot import StartRefused
from messaging.process.serve import serve


class _Formatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """A help formatter that keeps the line breaks of the table of settings."""


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no address such as 127.0.0.1 or 0.0.0.0") from None


class Command(BaseCommand):
    """The command `manage.py hub`."""

    requires_system_checks = []  # `prepare` runs them and prints one sentence
    help = (
        "Serve the hub, on 127.0.0.1. The first start makes the database,\n"
        "the keys and an officer; a later one finds them as they are.\n"
        "Ctrl-C or SIGTERM ends it. These variables set it up:"
    )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return a parser whose help ends with the table of settings."""
        table = import_module(settings.SETTINGS_MODULE).__doc__ or ""
        return super().create_parser(
            prog_name,
            subcommand,
            formatter_class=_Formatter,
            epilog=table.partition("\n\n")[2],
            **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options of the command."""
        parser.add_argument(
            "--host",
            type=_address,
            help="instead of ATP_HOST; beyond 127.0.0.1 only behind a proxy with TLS",
        )
        parser.add_argument("--port", type=int, help="instead of ATP_PORT, for a further node")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until a signal; exit with one sentence if the start is refused."""
        try:
            serve(
                host=options["host"] or settings.ATP_HOST,
                port=options["port"] or settings.ATP_PORT,
                say=self._say,
            )
        except StartRefused as exc:
            sys.exit(str(exc))

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()  # a log file must get the password even if the hub crashes soon
