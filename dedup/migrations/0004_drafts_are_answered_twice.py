"""What a worker finds for a draft comes in two steps: what is near, then what of it is likely."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('dedup', '0003_the_review_desk'),
    ]

    operations = [
        migrations.AddField(
            model_name='draft',
            name='near',
            field=models.JSONField(null=True),
        ),
        migrations.AddField(
            model_name='draft',
            name='only_likely',
            field=models.BooleanField(db_default=True, default=True),
        ),
    ]
