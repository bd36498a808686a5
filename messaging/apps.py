"""The messaging app: sockets, envelopes and deliveries, on top of the registry."""

from __future__ import annotations

from django.apps import AppConfig


class MessagingConfig(AppConfig):
    """The Django app `messaging`."""

    name = "messaging"
    verbose_name = "Messages"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the tasks, and give the registry the functions that act on traffic."""
        from messaging import tasks  # noqa: F401  # a task is known once imported
        from messaging.mail import dead_letters
        from messaging.sessions import presence
        from messaging.telemetry import signs  # noqa: F401  # listens to Celery, as recording does
        from registry import hooks
        from registry.bulk.decisions import DECISIONS

        hooks.fill(
            hooks.Hooks(
                close_sockets=presence.close_sockets,
                online_agents=presence.online_agents,
                open_sockets=presence.open_sockets,
                live_sessions=presence.live_sessions,
                open_dead_letters=dead_letters.count_open,
            )
        )
        DECISIONS.add("delivery.redeliver", dead_letters.REDELIVER)
