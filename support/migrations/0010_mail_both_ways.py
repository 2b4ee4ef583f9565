import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


def keep_who_wants_none(apps, schema_editor):
    people = apps.get_model("support", "User").objects
    people.filter(wants_mail=False).update(mail_pace="none")


def keep_who_wanted_none(apps, schema_editor):
    people = apps.get_model("support", "User").objects
    people.filter(mail_pace="none").update(wants_mail=False)


class Migration(migrations.Migration):
    dependencies = [("support", "0009_guests")]

    operations = [
        migrations.AddField(
            model_name="user",
            name="mail_pace",
            field=models.CharField(
                choices=[
                    ("at_once", "A mail for each piece of news, at once"),
                    ("daily", "One mail a day with all that is new"),
                    ("none", "No mail"),
                ],
                db_default="at_once",
                default="at_once",
                max_length=7,
            ),
        ),
        migrations.RunPython(keep_who_wants_none, keep_who_wanted_none),
        migrations.RemoveField(model_name="user", name="wants_mail"),
        migrations.AddField(
            model_name="notification",
            name="attempts",
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.AlterField(
            model_name="notification",
            name="status",
            field=models.CharField(
                choices=[
                    ("waiting", "Waiting"),
                    ("sending", "Being sent"),
                    ("sent", "Sent"),
                    ("unknown", "Perhaps sent"),
                    ("refused", "Refused by the mail server"),
                    ("cancelled", "Not needed any more"),
                ],
                default="waiting",
                max_length=9,
            ),
        ),
        migrations.CreateModel(
            name="MailStop",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("stopped_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "person",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="mail_stops",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "question",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="mail_stops",
                        to="support.question",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("person", "question"), name="mailstop_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="InboundMail",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("message_hash", models.CharField(max_length=64)),
                ("received_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "outcome",
                    models.CharField(
                        choices=[
                            ("posted", "Became an answer"),
                            ("empty", "Said nothing of its own"),
                            ("automatic", "Written by a machine"),
                            ("refused", "Not from who may answer there"),
                            ("too_many", "More than one person may send"),
                            ("unreadable", "Could not be read"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "answer",
                    models.OneToOneField(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="inbound_mail",
                        to="support.answer",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("message_hash",), name="inboundmail_once"),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("answer__isnull", False), ("outcome", "posted")),
                            models.Q(
                                models.Q(("outcome", "posted"), _negated=True),
                                ("answer__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="inboundmail_answer_if_posted",
                    ),
                ],
            },
        ),
    ]
