"""The command that places and lifts legal holds on entries of the trail."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from atp.errors import ATPError
from registry.officers.actor import Actor
from registry.trail.erasing import lift_hold, place_hold
from registry.trail.models import LegalHold


class Command(BaseCommand):
    """Places, lifts and lists legal holds. An entry under a hold keeps all its sections."""

    help = "Place, lift or list legal holds on entries of the trail."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add one subcommand for each task."""
        tasks = parser.add_subparsers(dest="task", required=True)
        tasks.add_parser("list", help="list the holds in force")
        place = tasks.add_parser("place", help="keep entries, whatever their retention says")
        place.add_argument("--agent", default="", help="keep entries about this agent")
        place.add_argument(
            "--organisation", default="", help="keep entries of the organisation with this uid"
        )
        place.add_argument("--everything", action="store_true", help="keep all entries")
        place.add_argument("--reason", required=True)
        lift = tasks.add_parser("lift", help="end a hold")
        lift.add_argument("hold", type=int, help="the number of the hold")
        lift.add_argument("--reason", required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        """Carry out the task; an error of the hub becomes the command's error."""
        try:
            getattr(self, f"_{options['task']}")(options)
        except ATPError as problem:
            raise CommandError(str(problem)) from problem

    def _list(self, options: dict[str, Any]) -> None:
        for row in LegalHold.objects.filter(lifted_at=None):
            self.stdout.write(f"{row} since {row.placed_at:%Y-%m-%d}: {row.reason}")

    def _place(self, options: dict[str, Any]) -> None:
        agent, organisation = options["agent"], options["organisation"]
        if bool(agent or organisation) == options["everything"]:
            raise CommandError("Give --agent or --organisation, or --everything.")
        row = place_hold(
            agent=agent,
            organisation=organisation,
            reason=options["reason"],
            actor=Actor.operator(),
        )
        self.stdout.write(f"{row} is in force.")

    def _lift(self, options: dict[str, Any]) -> None:
        row = lift_hold(options["hold"], reason=options["reason"], actor=Actor.operator())
        self.stdout.write(f"{row} is lifted.")
