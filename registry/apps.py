"""The Django app `registry`: agents, issuers, attestations, policies, scores, the trail."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class RegistryConfig(AppConfig):
    """Registers the trail's system check, and makes its triggers after every migration."""

    name = "registry"
    verbose_name = "Trust registry"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the trail's check; make its triggers after each migration; watch accounts."""
        from registry.officers.watching import watch
        from registry.trail import checks as _checks  # noqa: F401  # registers itself
        from registry.trail.triggers import make_triggers

        watch()
        post_migrate.connect(make_triggers, sender=self, dispatch_uid="append-only triggers")
