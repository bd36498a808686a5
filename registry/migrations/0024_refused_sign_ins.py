from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0023_admin_readings'),
    ]

    operations = [
        migrations.CreateModel(
            name='RefusedSignIn',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=128)),
                ('minute', models.DateTimeField()),
                ('address', models.CharField(max_length=45)),
                ('browser', models.CharField(max_length=200)),
                ('count', models.PositiveIntegerField(default=1)),
            ],
            options={
                'constraints': [models.UniqueConstraint(models.F('name'), models.F('minute'), models.F('address'), models.F('browser'), name='refused_sign_ins_of_a_minute')],
            },
        ),
    ]
