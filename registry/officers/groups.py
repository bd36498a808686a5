"""What compliance officers and auditors may do, as Django groups.

The two groups are the hub's own: each start sets them to what stands here. Another cut of rights
is another group. Nobody may delete: what has a history is suspended, revoked or turned off.
"""

from __future__ import annotations

from django.apps import apps
from django.contrib.auth.models import Group, Permission

OFFICERS = "Compliance officers"
AUDITORS = "Auditors"
_SEEN_BY_BOTH = ("registry", "messaging")
# What officers make and change through actions; everything else is only looked at.
_MADE = {
    "agent", "organisation", "tag", "issuer", "attestation", "policy", "scoringprofile", "apitoken",
}  # fmt: skip
_CHANGED = _MADE | {
    "agentkey",
    "enrolmenttoken",
    "issuerkey",
    "violation",
    "backgroundtask",
    "rulenotice",
}


def ensure_groups() -> None:
    """Set both groups to their permissions; writes nothing where they have them."""
    models = {
        (label, model._meta.model_name)
        for label in _SEEN_BY_BOTH
        for model in apps.get_app_config(label).get_models()
    }
    view = {(label, f"view_{name}") for label, name in models}
    change = {(label, f"change_{name}") for label, name in models if name in _CHANGED}
    add = {(label, f"add_{name}") for label, name in models if name in _MADE}
    # Nobody else can issue an auditor's token, so auditors issue and revoke their own.
    own_tokens = {("registry", "add_apitoken"), ("registry", "change_apitoken")}
    known = {
        (permission.content_type.app_label, permission.codename): permission
        for permission in Permission.objects.filter(
            content_type__app_label__in=_SEEN_BY_BOTH
        ).select_related("content_type")
    }
    for group_name, wanted in ((OFFICERS, view | change | add), (AUDITORS, view | own_tokens)):
        _set(group_name, [known[key] for key in wanted if key in known])


def _set(group_name: str, permissions: list[Permission]) -> None:
    group, _ = Group.objects.get_or_create(name=group_name)
    if set(group.permissions.all()) != set(permissions):
        group.permissions.set(permissions)
