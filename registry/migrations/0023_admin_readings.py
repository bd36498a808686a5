from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0022_people'),
    ]

    operations = [
        migrations.CreateModel(
            name='AdminReading',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('actor', models.CharField(max_length=32)),
                ('window', models.DateTimeField()),
                ('kind', models.CharField(max_length=40)),
                ('subject', models.CharField(max_length=200)),
                ('digest', models.CharField(max_length=43)),
                ('said', models.JSONField(default=dict)),
                ('count', models.PositiveIntegerField(default=1)),
                ('is_entered', models.BooleanField(default=False)),
            ],
            options={
                'indexes': [models.Index(fields=['window'], name='admin_reading_window')],
                'constraints': [models.UniqueConstraint(models.F('actor'), models.F('window'), models.F('kind'), models.F('digest'), name='admin_reading_of_a_window')],
            },
        ),
    ]
