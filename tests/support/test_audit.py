from datetime import UTC, datetime

import pytest
from django.db import DatabaseError, connection, transaction

from support import audit, merging
from support.models import AuditEntry
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_an_entry_says_who_did_what_when_to_which_question(admin):
    question = QuestionFactory()

    audit.record("asked", by=admin, now=NOW, question=question, version=3)

    entry = AuditEntry.objects.get()
    assert (entry.action, entry.by, entry.at) == ("asked", admin, NOW)
    assert (entry.question, entry.details) == (question, {"version": 3})


def test_what_the_machine_does_has_nobody_behind_it():
    audit.record("release_activated", by=None, now=NOW, release="one")

    assert AuditEntry.objects.get().by is None


def test_a_merge_and_its_unmerge_stand_in_both_histories_without_any_text(admin):
    canonical, duplicate = QuestionFactory(), QuestionFactory(title="Very private words")
    edge = merging.merge(
        duplicate=duplicate, canonical=canonical, by=admin, reason="Secret reason", now=NOW,
        evidence=merging.Evidence(0.93, "one"),
    )  # fmt: skip
    merging.unmerge(merge=edge, by=admin, now=NOW)

    entries = AuditEntry.objects.order_by("pk")
    assert [(e.action, e.question, e.details["role"]) for e in entries] == [
        ("merged", duplicate, "duplicate"),
        ("merged", canonical, "canonical"),
        ("unmerged", duplicate, "duplicate"),
        ("unmerged", canonical, "canonical"),
    ]
    for entry in entries:
        assert entry.details["merge"] == edge.pk
        assert (entry.details["probability"], entry.details["release"]) == (0.93, "one")
        assert "rivate" not in str(entry.details)
        assert "Secret" not in str(entry.details)


@pytest.mark.parametrize(
    "change", ["UPDATE support_auditentry SET action = 'x'", "DELETE FROM support_auditentry"]
)
def test_entries_are_never_changed_or_deleted(change):
    audit.record("asked", by=None, now=NOW)

    refused = pytest.raises(DatabaseError, match="never changed or deleted")
    with refused, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change)

    assert AuditEntry.objects.get().action == "asked"


def test_an_entry_goes_with_the_transaction_that_it_is_about():
    with transaction.atomic():
        audit.record("asked", by=None, now=NOW)
        transaction.set_rollback(True)

    assert not AuditEntry.objects.exists()
