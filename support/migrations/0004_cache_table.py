"""Limits and counters live in Postgres; this is their table."""

from django.core.management import call_command
from django.db import migrations


def create(apps, schema_editor):
    call_command("createcachetable", database=schema_editor.connection.alias)


class Migration(migrations.Migration):
    dependencies = [("support", "0003_audit_only_grows")]

    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
