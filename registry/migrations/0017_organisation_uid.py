"""Each organisation gets a random uid, which entries of the trail name."""

import secrets
from typing import Any

from django.db import migrations, models


def fill(apps: Any, schema_editor: Any) -> None:
    Organisation = apps.get_model("registry", "Organisation")
    for row in Organisation.objects.filter(uid=None):
        Organisation.objects.filter(pk=row.pk).update(uid=f"org_{secrets.token_hex(8)}")


class Migration(migrations.Migration):
    dependencies = [("registry", "0016_entry_format_1")]

    operations = [
        migrations.AddField(
            "organisation", "uid", models.CharField(editable=False, max_length=24, null=True)
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
