"""The uid of an organisation is required and unique."""

from django.db import migrations, models

import registry.agents.models


class Migration(migrations.Migration):
    dependencies = [("registry", "0017_organisation_uid")]

    operations = [
        migrations.AlterField(
            "organisation",
            "uid",
            models.CharField(
                default=registry.agents.models.new_organisation_uid,
                editable=False,
                max_length=24,
                unique=True,
            ),
        ),
    ]
