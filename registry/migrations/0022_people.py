"""Random pseudonyms, stored with the accounts: what computed them from a secret is gone."""

import django.db.models.deletion
import registry.officers.models
from django.conf import settings
from django.db import migrations, models


def name_people(apps, schema_editor):
    accounts = apps.get_model(*settings.AUTH_USER_MODEL.split("."))
    person = apps.get_model("registry", "Person")
    for account in accounts.objects.order_by("pk").iterator():
        person.objects.get_or_create(account_id=account.pk)


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0021_reading_at_size'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ErasedPerson',
            fields=[
                ('pseudonym', models.CharField(editable=False, max_length=32, primary_key=True, serialize=False)),
                ('erased_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name='Person',
            fields=[
                ('account', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='person', serialize=False, to=settings.AUTH_USER_MODEL)),
                ('pseudonym', models.CharField(default=registry.officers.models.new_pseudonym, editable=False, max_length=32, unique=True)),
            ],
            options={'verbose_name_plural': 'people'},
        ),
        migrations.RunPython(name_people, migrations.RunPython.noop),
        migrations.RemoveField(model_name='hub', name='pseudonyms_sealed'),
    ]
