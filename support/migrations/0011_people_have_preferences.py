"""How somebody reads the portal: language, time zone, theme, keys."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("support", "0010_mail_both_ways")]

    operations = [
        migrations.AddField(
            model_name="user",
            name="language",
            field=models.CharField(blank=True, db_default="", default="", max_length=12),
        ),
        migrations.AddField(
            model_name="user",
            name="time_zone",
            field=models.CharField(blank=True, db_default="", default="", max_length=64),
        ),
        migrations.AddField(
            model_name="user",
            name="theme",
            field=models.CharField(
                choices=[("auto", "As the device does"), ("light", "Light"), ("dark", "Dark")],
                db_default="auto",
                default="auto",
                max_length=5,
            ),
        ),
        migrations.AddField(
            model_name="user",
            name="uses_keys",
            field=models.BooleanField(db_default=True, default=True),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(theme__in=["auto", "light", "dark"]),
                name="user_theme_is_known",
            ),
        ),
    ]
