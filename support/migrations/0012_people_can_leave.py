"""Who has left keeps a row with an id, and nothing else in it; nobody writes in their name.

The trigger waits for an erasure that is under way: what somebody sends in the midst of it is
refused, and never stands there after it.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("support", "0011_people_have_preferences")]

    operations = [
        migrations.AddField(
            model_name="user",
            name="erased_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(erased_at__isnull=True)
                | models.Q(
                    username__startswith="erased-",
                    email="",
                    first_name="",
                    last_name="",
                    display_name="",
                    language="",
                    time_zone="",
                    last_login__isnull=True,
                    is_active=False,
                    is_staff=False,
                    is_superuser=False,
                    mail_pace="none",
                ),
                name="user_erased_has_nothing_left",
            ),
        ),
        migrations.RunSQL(
            """
            CREATE FUNCTION support_refuse_erased_writer() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE
                writer bigint := to_jsonb(NEW) ->> TG_ARGV[0];
                gone timestamptz;
            BEGIN
                SELECT erased_at INTO gone FROM support_user WHERE id = writer FOR KEY SHARE;
                IF gone IS NOT NULL THEN
                    RAISE EXCEPTION 'this person was erased' USING ERRCODE = 'check_violation',
                        CONSTRAINT = TG_TABLE_NAME || '_writer_is_here';
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER question_writer_is_here BEFORE INSERT ON support_question
            FOR EACH ROW EXECUTE FUNCTION support_refuse_erased_writer('asked_by_id');
            CREATE TRIGGER answer_writer_is_here BEFORE INSERT ON support_answer
            FOR EACH ROW EXECUTE FUNCTION support_refuse_erased_writer('written_by_id');
            """,
            """
            DROP TRIGGER question_writer_is_here ON support_question;
            DROP TRIGGER answer_writer_is_here ON support_answer;
            DROP FUNCTION support_refuse_erased_writer();
            """,
        ),
    ]
