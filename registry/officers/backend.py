"""Who may be signed in: active accounts, and those of auditors while their engagement runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.backends import ModelBackend

from registry.officers.models import Engagement


def may_act(account: Any) -> bool:
    """Return whether the account is active and, if it has an engagement, whether that runs now."""
    if account is None or not account.is_active:
        return False
    engagement = Engagement.objects.filter(account=account.pk).first()
    return engagement is None or engagement.is_running(datetime.now(UTC))


class EngagementBackend(ModelBackend):
    """Django's backend, which forgets an account for as long as its engagement does not run.

    Django asks it at each request with a session, so an engagement ends sessions too.
    """

    def user_can_authenticate(self, user: Any) -> bool:
        """Return whether the account may sign in, or go on, now."""
        return may_act(user)
