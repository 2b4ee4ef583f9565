"""Audit entries are never changed or deleted."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("support", "0002_the_forest_is_flat")]

    operations = [
        migrations.RunSQL(
            """
            CREATE FUNCTION support_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'audit entries are never changed or deleted'; END $$;
            CREATE TRIGGER auditentry_only_grows BEFORE UPDATE OR DELETE ON support_auditentry
            FOR EACH ROW EXECUTE FUNCTION support_audit_refuse();
            """,
            """
            DROP TRIGGER auditentry_only_grows ON support_auditentry;
            DROP FUNCTION support_audit_refuse();
            """,
        )
    ]
