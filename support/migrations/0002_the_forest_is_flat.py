"""Postgres refuses a pointer at a question that is itself merged: no chain, no cycle."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("support", "0001_questions_answers_and_merges")]

    operations = [
        migrations.RunSQL(
            """
            ALTER TABLE support_question ADD CONSTRAINT question_canonical_is_live
            FOREIGN KEY (canonical_id, canonical_is_root) REFERENCES support_question (id, is_root)
            DEFERRABLE INITIALLY IMMEDIATE
            """,
            "ALTER TABLE support_question DROP CONSTRAINT question_canonical_is_live",
        )
    ]
