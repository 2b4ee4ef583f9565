"""Questions that nobody waits for are checked behind all others, and keep who last checked them."""

from django.db import migrations, models

WAITS = models.Q(settled_at__isnull=True, quarantined_at__isnull=True)


class Migration(migrations.Migration):
    dependencies = [("support", "0012_people_can_leave")]

    operations = [
        migrations.AddField(
            model_name="outboxentry",
            name="checked_by",
            field=models.CharField(blank=True, db_default="", default="", max_length=64),
        ),
        migrations.AddField(
            model_name="outboxentry",
            name="is_background",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddIndex(
            model_name="outboxentry",
            index=models.Index(
                condition=WAITS,
                fields=["is_background", "is_suspect", "put_at", "id"],
                name="outbox_in_turn",
            ),
        ),
        migrations.AddIndex(
            model_name="outboxentry",
            index=models.Index(
                condition=models.Q(
                    is_background=False, settled_at__isnull=True, quarantined_at__isnull=True
                ),
                fields=["put_at"],
                name="outbox_live",
            ),
        ),
        migrations.AddIndex(
            model_name="outboxentry",
            index=models.Index(
                condition=models.Q(leased_until__isnull=False),
                fields=["leased_until"],
                name="outbox_leased",
            ),
        ),
        migrations.RemoveIndex(model_name="outboxentry", name="outbox_waiting"),
    ]
