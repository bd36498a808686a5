"""When the hub last noted that it runs, and when it last entered its clock."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0018_organisation_uid_unique")]

    operations = [
        migrations.AddField("hub", "watched_at", models.DateTimeField(editable=False, null=True)),
        migrations.AddField(
            "hub", "clock_entered_at", models.DateTimeField(editable=False, null=True)
        ),
    ]
