"""Why, in words, beside each body; and the entries of a request by index."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0002_baseline")]

    operations = [
        migrations.AddField(
            model_name="entrybody",
            name="reason",
            field=models.CharField(blank=True, db_default="", max_length=400),
        ),
        migrations.AddIndex(
            model_name="entry",
            index=models.Index(fields=["request_id"], name="entry_request"),
        ),
    ]
