from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('dedup', '0007_pairs_are_chosen_to_learn_from'),
    ]

    operations = [
        migrations.AddField(
            model_name='score',
            name='settled_by',
            field=models.CharField(
                choices=[
                    ('cross-encoder', 'cross-encoder'),
                    ('student', 'student'),
                    ('cosine', 'cosine'),
                ],
                db_default='cross-encoder',
                default='cross-encoder',
                max_length=13,
            ),
        ),
        migrations.AlterField(
            model_name='score',
            name='logit',
            field=models.FloatField(blank=True, null=True),
        ),
        migrations.AddConstraint(
            model_name='score',
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(('logit__isnull', False), ('settled_by', 'cross-encoder')),
                    models.Q(
                        models.Q(('settled_by', 'cross-encoder'), _negated=True),
                        ('logit__isnull', True),
                    ),
                    _connector='OR',
                ),
                name='score_logit_where_cross_encoder_read',
            ),
        ),
    ]
