"""A draft is worth a moment: neither the write-ahead log nor a backup keeps it."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("dedup", "0001_releases_embeddings_and_flags")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE dedup_draft SET UNLOGGED", "ALTER TABLE dedup_draft SET LOGGED"
        )
    ]
