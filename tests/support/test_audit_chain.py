"""The audit trail is one chain, and who tampers with it is found, also past the triggers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, connection, transaction

from support import asking, audit, erasing, merging
from support.models import AuditEntry, AuditHead, AuditLink
from tests.factories import ProductFactory, QuestionFactory

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def commit():
    """Do what a commit does: run the triggers that wait for it."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")


def tamper(sql, *values):
    """As somebody who owns the database may: past all triggers."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(sql, values)
        assert cursor.rowcount > 0
        cursor.execute("SET LOCAL session_replication_role = origin")


@pytest.fixture
def trail():
    """Five entries, committed; their ids."""
    question = QuestionFactory()
    for number in range(5):
        audit.record("edited", by=None, now=NOW, question=question, version=number, said="a\n\"'ä")
    commit()
    return list(AuditEntry.objects.order_by("pk").values_list("pk", flat=True))


def broken(**options):
    """Position, entry and reason of the first broken record."""
    found = audit.verify(**options).broken
    return (found.position, found.entry, found.why) if found else None


def test_an_empty_trail_holds():
    assert audit.verify() == audit.Verified(0, "", None)


def test_each_entry_holds_the_hash_of_the_one_before(trail):
    links = list(AuditLink.objects.order_by("position"))

    assert [(one.position, one.entry_id) for one in links] == list(enumerate(trail, 1))
    before = [audit.BEGINNING, *(bytes(one.hash) for one in links)]
    assert [bytes(one.previous) for one in links] == before[:-1]
    assert str(AuditHead.objects.get()) == f"5:{before[-1].hex()}"
    assert audit.verify() == audit.Verified(5, f"5:{before[-1].hex()}", None)


@pytest.mark.parametrize(
    "change",
    [
        "action = 'asked'", "at = at + interval '1 microsecond'", "question_id = NULL",
        "details = '{\"version\": 7}'", "by_id = 1",
    ],
)  # fmt: skip
def test_a_changed_entry_is_found(trail, change):
    tamper(f"UPDATE support_auditentry SET {change} WHERE id = %s", trail[2])

    assert broken() == (3, trail[2], "does not say what was written")


def test_an_entry_that_was_taken_out_is_found(trail):
    tamper("DELETE FROM support_auditentry WHERE id = %s", trail[2])
    assert broken() == (3, trail[2], "is gone")

    tamper("DELETE FROM support_auditlink WHERE entry_id = %s", trail[2])
    assert broken() == (4, trail[3], "follows a gap: 3 is gone")


def test_the_first_entry_is_not_taken_out_unseen(trail):
    tamper("DELETE FROM support_auditentry WHERE id = %s", trail[0])
    tamper("DELETE FROM support_auditlink WHERE entry_id = %s", trail[0])

    assert broken() == (2, trail[1], "follows a gap: 1 is gone")


def test_an_end_that_was_taken_out_is_found_also_after_more_was_written(trail):
    tamper("DELETE FROM support_auditentry WHERE id >= %s", trail[3])
    tamper("DELETE FROM support_auditlink WHERE position >= 4")
    assert broken() == (4, None, "is gone, and all behind it to 5")

    audit.record("asked", by=None, now=NOW)
    commit()
    assert broken()[0::2] == (6, "follows a gap: 4 is gone")


def test_all_of_it_taken_out_is_found(trail):
    tamper("DELETE FROM support_auditentry")
    tamper("DELETE FROM support_auditlink")

    assert broken() == (1, None, "is gone, and all behind it to 5")


def test_entries_that_changed_places_are_found(trail):
    swap = "UPDATE support_auditlink SET entry_id = CASE entry_id WHEN %s THEN %s ELSE %s END"
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE support_auditlink DROP CONSTRAINT support_auditlink_pkey")
    tamper(f"{swap} WHERE entry_id IN (%s, %s)", trail[1], trail[3], trail[1], trail[1], trail[3])

    assert broken() == (2, trail[3], "does not say what was written")


def test_an_entry_that_was_put_in_between_is_found(trail):
    """With a link of its own, and all behind it moved on; only their hashes are as they were."""
    put = "INSERT INTO support_auditentry (at, action, details) VALUES (%s, 'asked', '{}')"
    tamper(put, NOW)
    forged = AuditEntry.objects.latest("pk").pk
    assert broken() == (None, forged, "was written past the chain")

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE support_auditlink DROP CONSTRAINT auditlink_is_whole")
    tamper("UPDATE support_auditlink SET position = -position WHERE position > 2")
    tamper("UPDATE support_auditlink SET position = 1 - position WHERE position < 0")
    before = bytes(AuditLink.objects.get(position=2).hash)
    made = audit.digest(
        3, before, forged, "2026-03-01T12:00:00.000000", None, '"asked"', None, "{}"
    )
    tamper("INSERT INTO support_auditlink VALUES (%s, 3, %s, %s)", forged, before, made)
    assert broken() == (4, trail[2], "does not hold on to the one before")


def test_a_chain_that_was_worked_out_anew_is_found_by_a_head_that_was_noted(trail):
    noted = dict([audit.read_head(audit.verify().head)])
    tamper("DELETE FROM support_auditlink")
    tamper("DELETE FROM support_audithead")
    tamper("UPDATE support_auditentry SET action = 'asked' WHERE id = %s", trail[0])
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO support_auditlink SELECT id FROM support_auditentry ORDER BY id"
        )
    commit()

    assert broken() is None
    assert broken(noted=noted) == (5, trail[4], "is another than the head that was noted")


def test_a_head_that_was_taken_out_stops_nobody(trail):
    tamper("DELETE FROM support_audithead")

    audit.record("asked", by=None, now=NOW)
    commit()

    assert (audit.verify().number, broken()) == (6, None)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE support_auditlink SET hash = previous",
        "UPDATE support_auditlink SET position = NULL, previous = NULL, hash = NULL",
        "DELETE FROM support_auditlink",
    ],
)
def test_links_are_never_changed_or_deleted(trail, change):
    refused = pytest.raises(DatabaseError, match="never changed or deleted")
    with refused, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change)

    assert broken() is None


def test_a_link_is_whole_or_not_there_yet(trail):
    entry = AuditEntry.objects.create(action="asked", at=NOW)
    with pytest.raises(IntegrityError, match="auditlink_is_whole"), transaction.atomic():
        AuditLink.objects.create(entry=entry, position=9)


def test_there_is_one_head(trail):
    with pytest.raises(IntegrityError, match="audithead_is_one"), transaction.atomic():
        AuditHead.objects.create(id=2, position=9, hash=b"")


def test_the_trail_still_holds_when_somebody_has_left(customer, admin):
    given = {"product": ProductFactory(), "body": "Private words", "audience": "public"}
    asked = asking.submit_question(title="How?", by=customer, **given)
    merging.merge(duplicate=asked, canonical=QuestionFactory(), by=admin)
    commit()
    before = audit.verify()

    erasing.erase(person=customer, by=None)
    commit()

    after = audit.verify(noted=dict([audit.read_head(before.head)]))
    assert (before.number, before.broken) == (3, None)
    assert (after.number, after.broken) == (5, None)


@pytest.mark.django_db(transaction=True)
def test_twenty_that_write_at_once_form_one_chain():
    question = QuestionFactory()
    start = threading.Barrier(20, timeout=30)

    def write(number):
        try:
            connection.ensure_connection()
            start.wait()
            for _ in range(10):
                with transaction.atomic():
                    audit.record("edited", by=None, now=NOW, question=question, version=number)
                    audit.record("edited", by=None, now=NOW, version=number)
                with transaction.atomic():
                    audit.record("asked", by=None, now=NOW)
                    transaction.set_rollback(True)
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(write, range(20)))

    found = audit.verify()
    assert (found.number, found.broken) == (400, None)
    positions = AuditLink.objects.order_by("position").values_list("position", flat=True)
    assert list(positions) == list(range(1, 401))


@pytest.mark.django_db(transaction=True)
def test_who_has_yet_to_commit_holds_up_nobody_else():
    """The lock is taken at the end: else two that wait for each other's rows would both fail."""

    def write_beside():
        try:
            audit.record("asked", by=None, now=NOW)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        audit.record("edited", by=None, now=NOW)
        pool.submit(write_beside).result(timeout=30)

    said = AuditLink.objects.order_by("position").values_list("entry__action", flat=True)
    assert list(said) == ["asked", "edited"]


class TestCommand:
    def test_it_tells_the_head_and_ends_well(self, trail, capsys):
        call_command("verify_audit")

        said = capsys.readouterr().out
        assert "As they were written: 5 (" in said
        assert f"Head: {audit.verify().head}" in said
        call_command("verify_audit", "--head", audit.verify().head)

    def test_it_names_the_first_broken_record_and_fails(self, trail, capsys):
        tamper("UPDATE support_auditentry SET action = 'x' WHERE id = ANY(%s)", trail[1:4])

        said = rf"Record 2 \(audit entry {trail[1]}\) does not say what was written"
        with pytest.raises(CommandError, match=said) as failed:
            call_command("verify_audit")

        assert failed.value.returncode == 1
        assert "As they were written: 1 (" in capsys.readouterr().out

    @pytest.mark.parametrize("said", ["5", "x:00", "0:" + "0" * 64, "5:00"])
    def test_it_takes_no_head_that_is_none(self, said):
        with pytest.raises(CommandError, match="POSITION:HASH"):
            call_command("verify_audit", "--head", said)


@pytest.mark.django_db(transaction=True)
def test_what_was_written_before_there_was_a_chain_is_chained_in_its_order():
    try:
        call_command("migrate", "support", "0013", verbosity=0)
        for number in range(3):
            audit.record("edited", by=None, now=NOW, version=number)
    finally:
        call_command("migrate", verbosity=0)
    audit.record("asked", by=None, now=NOW)

    said = AuditLink.objects.order_by("position").values_list("position", "entry__details")
    assert [place for place, _ in said] == [1, 2, 3, 4]
    assert [details.get("version") for _, details in said] == [0, 1, 2, None]
    assert (audit.verify().number, broken()) == (4, None)
