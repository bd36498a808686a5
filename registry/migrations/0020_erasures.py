"""Erasures of sections, and legal holds."""

from django.db import migrations, models

SECTIONS = ("shared", "sender", "recipient", "personal")


class Migration(migrations.Migration):
    dependencies = [("registry", "0019_watched_log")]

    operations = [
        migrations.CreateModel(
            "Erasure",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("position", models.BigIntegerField()),
                (
                    "section",
                    models.CharField(choices=[(name, name) for name in SECTIONS], max_length=12),
                ),
                ("entry", models.BigIntegerField()),
                (
                    "reason",
                    models.CharField(help_text="The class of the reason.", max_length=40),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint("position", "section", name="erasure_of_a_section")
                ]
            },
        ),
        migrations.CreateModel(
            "LegalHold",
            [
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("agent", models.CharField(blank=True, max_length=128)),
                ("organisation", models.CharField(blank=True, max_length=24)),
                ("reason", models.CharField(max_length=300)),
                ("placed_at", models.DateTimeField(auto_now_add=True)),
                ("lifted_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={"ordering": ["id"]},
        ),
    ]
