"""The rights of compliance officers and auditors, as three Django groups.

Each start of the hub sets these groups to the rights in this file. For other rights, make another
group. No group may delete: rows with a history are suspended, revoked or turned off instead.
"""

from __future__ import annotations

from django.apps import apps
from django.contrib.auth.models import Group, Permission

OFFICERS = "Compliance officers"
AUDITORS = "Auditors"
SCOPED_AUDITORS = "Scoped auditors"  # only the trail, of some organisations (`scope.py`)
_SEEN_BY_BOTH = ("registry", "messaging")
_ALSO_SEEN = {("registry", "view_officer_names")}  # a permission of `Entry`
# Models that officers add and change through actions. They may only view all others.
_MADE = {
    "agent", "organisation", "tag", "issuer", "attestation", "policy", "scoringprofile", "apitoken",
    "engagement",
}  # fmt: skip
_CHANGED = _MADE | {
    "agentkey",
    "enrolmenttoken",
    "issuerkey",
    "violation",
    "backgroundtask",
    "rulenotice",
    "deadletter",
}


def ensure_groups() -> None:
    """Make the groups and set their permissions; write nothing if they have them already."""
    models = {
        (label, model._meta.model_name)
        for label in _SEEN_BY_BOTH
        for model in apps.get_app_config(label).get_models()
    }
    view = {(label, f"view_{name}") for label, name in models} | _ALSO_SEEN
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
    of_scoped = {("registry", "view_entry"), ("registry", "view_apitoken"), *own_tokens}
    groups = (
        (OFFICERS, view | change | add),
        (AUDITORS, view | own_tokens),
        (SCOPED_AUDITORS, of_scoped),
    )
    for group_name, wanted in groups:
        _set(group_name, [known[key] for key in wanted if key in known])


def _set(group_name: str, permissions: list[Permission]) -> None:
    group, _ = Group.objects.get_or_create(name=group_name)
    if set(group.permissions.all()) != set(permissions):
        group.permissions.set(permissions)
