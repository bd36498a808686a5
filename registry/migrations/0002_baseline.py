"""The policies and the scoring profile that a hub starts with."""

from typing import Any

from django.db import migrations

from atp.wire.canonical import digest
from atp.judging.policy import BASELINE
from atp.judging.scoring import DEFAULT_PROFILE
from registry.policies.documents import normalise

REASON = "shipped with the hub"


def ship(apps: Any, schema_editor: Any) -> None:
    ScoringProfile = apps.get_model("registry", "ScoringProfile")
    ScoringProfile.objects.get_or_create(
        version=DEFAULT_PROFILE.version,
        defaults={"document": DEFAULT_PROFILE.to_dict(), "reason": REASON},
    )
    Policy = apps.get_model("registry", "Policy")
    for document in map(normalise, BASELINE):
        if not Policy.objects.filter(name=document["name"]).exists():
            _write(apps, document)


def _write(apps: Any, document: dict[str, Any]) -> None:
    settings = {name: value for name, value in document.items() if name != "rules"}
    policy = apps.get_model("registry", "Policy").objects.create(**settings)
    apps.get_model("registry", "PolicyVersion").objects.create(
        policy=policy, number=1, document=document, digest=digest(document), reason=REASON
    )
    Condition = apps.get_model("registry", "Condition")
    for rule in document["rules"]:
        throttle = rule.get("throttle") or {}
        columns = ("name", "action", "severity", "priority", "always")
        row = apps.get_model("registry", "Rule").objects.create(
            policy=policy,
            throttle_limit=throttle.get("limit"),
            throttle_seconds=throttle.get("per_seconds"),
            **{name: rule[name] for name in columns},
        )
        Condition.objects.bulk_create(
            Condition(rule=row, **condition) for condition in rule["conditions"]
        )


class Migration(migrations.Migration):
    dependencies = [("registry", "0001_initial")]

    operations = [migrations.RunPython(ship, migrations.RunPython.noop)]
