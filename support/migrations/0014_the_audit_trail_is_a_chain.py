"""Each audit entry is chained to the one before by a SHA-256, when its transaction commits.

One transaction at a time chains, under an advisory lock. It takes that lock when all else is done:
the first deferred trigger only puts the link, and the link's own deferred trigger, which Postgres
runs behind every check that waits for the commit, takes the lock and fills the link in. So nobody
who holds the lock waits for a row that another has locked.
"""

import django.db.models.deletion
from django.db import migrations, models

CHAIN = """
CREATE FUNCTION support_audit_put() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO support_auditlink (entry_id) VALUES (NEW.id);
    RETURN NULL;
END $$;

-- As support.audit reads it: a line for each part, the texts as JSON.
CREATE FUNCTION support_audit_digest(entry bigint, place bigint, before bytea) RETURNS bytea
LANGUAGE sql AS $$
    SELECT sha256(convert_to(concat_ws(E'\\n',
        place, encode(before, 'hex'), id,
        to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
        coalesce(by_id::text, '-'), to_jsonb(action)::text, coalesce(question_id::text, '-'),
        details::text
    ), 'UTF8')) FROM support_auditentry WHERE id = entry;
$$;

CREATE FUNCTION support_audit_chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    place bigint;
    before bytea;
    made bytea;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('support_auditlink'));
    -- The head, so that a last entry that was taken out leaves a gap; the last link, so that a head
    -- that was taken out stops nobody.
    SELECT position, hash INTO place, before FROM (
        SELECT position, hash FROM support_audithead
        UNION ALL
        (SELECT position, hash FROM support_auditlink WHERE position IS NOT NULL
         ORDER BY position DESC LIMIT 1)
    ) AS ends ORDER BY position DESC LIMIT 1;
    place := coalesce(place, 0) + 1;
    before := coalesce(before, sha256(''));
    made := support_audit_digest(NEW.entry_id, place, before);
    UPDATE support_auditlink SET position = place, previous = before, hash = made
    WHERE entry_id = NEW.entry_id;
    INSERT INTO support_audithead (id, position, hash) VALUES (1, place, made)
    ON CONFLICT (id) DO UPDATE SET position = excluded.position, hash = excluded.hash;
    RETURN NULL;
END $$;

CREATE FUNCTION support_audit_link_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.position IS NULL AND NEW.entry_id = OLD.entry_id THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'audit entries are never changed or deleted';
END $$;

CREATE CONSTRAINT TRIGGER auditentry_is_linked AFTER INSERT ON support_auditentry
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION support_audit_put();
CREATE CONSTRAINT TRIGGER auditlink_is_chained AFTER INSERT ON support_auditlink
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION support_audit_chain();
CREATE TRIGGER auditlink_only_grows BEFORE UPDATE OR DELETE ON support_auditlink
FOR EACH ROW EXECUTE FUNCTION support_audit_link_refuse();

-- What is there already, in the order in which it was written. By itself: the head is written once.
DO $$
DECLARE
    entry bigint;
    place bigint := 0;
    before bytea := sha256('');
    made bytea;
BEGIN
    LOCK TABLE support_auditentry IN SHARE ROW EXCLUSIVE MODE;
    ALTER TABLE support_auditlink DISABLE TRIGGER auditlink_is_chained;
    FOR entry IN SELECT id FROM support_auditentry ORDER BY id LOOP
        place := place + 1;
        made := support_audit_digest(entry, place, before);
        INSERT INTO support_auditlink (entry_id, position, previous, hash)
        VALUES (entry, place, before, made);
        before := made;
    END LOOP;
    IF place > 0 THEN
        INSERT INTO support_audithead (id, position, hash) VALUES (1, place, before);
    END IF;
    SET CONSTRAINTS ALL IMMEDIATE;
    ALTER TABLE support_auditlink ENABLE TRIGGER auditlink_is_chained;
END $$;
"""

BACK = """
DROP TRIGGER auditentry_is_linked ON support_auditentry;
DROP TRIGGER auditlink_is_chained ON support_auditlink;
DROP TRIGGER auditlink_only_grows ON support_auditlink;
DROP FUNCTION support_audit_put();
DROP FUNCTION support_audit_chain();
DROP FUNCTION support_audit_digest(bigint, bigint, bytea);
DROP FUNCTION support_audit_link_refuse();
"""


class Migration(migrations.Migration):
    dependencies = [("support", "0013_checks_in_the_background")]

    operations = [
        migrations.CreateModel(
            name="AuditHead",
            fields=[
                (
                    "id",
                    models.SmallIntegerField(default=1, primary_key=True, serialize=False),
                ),
                ("position", models.BigIntegerField()),
                ("hash", models.BinaryField(max_length=32)),
            ],
            options={
                "default_permissions": (),
                "constraints": [
                    models.CheckConstraint(condition=models.Q(id=1), name="audithead_is_one")
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditLink",
            fields=[
                (
                    "entry",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="link",
                        serialize=False,
                        to="support.auditentry",
                    ),
                ),
                ("position", models.BigIntegerField(null=True, unique=True)),
                ("previous", models.BinaryField(max_length=32, null=True)),
                ("hash", models.BinaryField(max_length=32, null=True)),
            ],
            options={
                "default_permissions": (),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            position__isnull=True, previous__isnull=True, hash__isnull=True
                        )
                        | models.Q(
                            position__gt=0, previous__isnull=False, hash__isnull=False
                        ),
                        name="auditlink_is_whole",
                    )
                ],
            },
        ),
        migrations.RunSQL(CHAIN, BACK),
    ]
