"""A crash after any statement of a merge, an unmerge or a review leaves all of it or nothing."""

import pytest
from django.apps import apps
from django.db import connection, transaction

from dedup import cluster, desk, review
from support import merging
from tests.factories import (
    AnswerFactory,
    FlagFactory,
    QuestionFactory,
    ReleaseFactory,
    SubscriptionFactory,
)

pytestmark = pytest.mark.django_db(transaction=True)

TABLES = [
    f"{app}.{name}"
    for app, names in {
        "support": ["Question", "Merge", "AuditEntry", "Notification", "Answer", "Subscription"],
        "dedup": ["Flag", "Review"],
    }.items()
    for name in names
]


class Killed(BaseException):
    """What a process that is killed would have said."""


class KilledAfter:
    """Lets `count` statements pass, and none after: as a process that ends there."""

    def __init__(self, count):
        self.count, self.passed = count, 0

    def __call__(self, execute, sql, params, many, context):
        if self.passed == self.count:
            raise Killed
        self.passed += 1
        result = execute(sql, params, many, context)
        if self.passed == self.count:
            raise Killed
        return result


def everything():
    """All rows that a merge could touch, read on a connection that saw no crash."""
    return {
        name: sorted(apps.get_model(name).objects.order_by("pk").values_list()) for name in TABLES
    }


def statements_of(act):
    """How many statements `act` takes; it is rolled back."""
    counter = KilledAfter(-1)
    with transaction.atomic(), connection.execute_wrapper(counter):
        act()
        transaction.set_rollback(True)
    return counter.passed


def merge_of_two_threads(admin):
    canonical, duplicate = QuestionFactory.create_batch(2)
    merging.merge(duplicate=QuestionFactory(), canonical=duplicate, by=admin)
    AnswerFactory(question=duplicate)
    SubscriptionFactory(question=duplicate)
    return lambda: merging.merge(duplicate=duplicate, canonical=canonical, by=admin)


def unmerge_of_a_subtree(admin):
    edge = merge_of_two_threads(admin)()
    return lambda: merging.unmerge(merge=edge, by=admin)


def restoring(admin):
    edge = merge_of_two_threads(admin)()
    merging.unmerge(merge=edge, by=admin)
    return lambda: merging.restore(merge=edge, by=admin)


def confirmation(admin):
    flag = FlagFactory()
    return lambda: review.confirm(flag=flag, canonical=flag.older, by=admin)


def undo_of_a_confirmation(admin):
    said = confirmation(admin)()
    return lambda: review.undo(review=said, by=admin)


def unmerge_of_a_confirmation(admin):
    said = confirmation(admin)()
    return lambda: desk.unmerge(merge=said.merge, by=admin)


def dismissal_of_a_disputed_merge(admin):
    ReleaseFactory()
    canonical, duplicate = QuestionFactory.create_batch(2)
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    flag = desk.dispute(question=duplicate, by=duplicate.asked_by, reason="Mine is square")
    return lambda: review.dismiss(flag=flag, by=admin)


def decision_on_a_cluster(admin):
    """Of three in a row the one in the middle is let out."""
    first, middle, last = QuestionFactory.create_batch(3)
    flags = [FlagFactory(older=first, newer=middle), FlagFactory(older=middle, newer=last)]
    return lambda: cluster.decide(
        flag_ids=[flag.pk for flag in flags], same=[first.pk, last.pk], out=[middle.pk], by=admin
    )


def undo_of_a_decision_on_a_cluster(admin):
    said = decision_on_a_cluster(admin)()
    return lambda: review.undo(review=said[0], by=admin)


@pytest.mark.parametrize(
    "prepare",
    [
        merge_of_two_threads,
        unmerge_of_a_subtree,
        restoring,
        confirmation,
        undo_of_a_confirmation,
        unmerge_of_a_confirmation,
        dismissal_of_a_disputed_merge,
        decision_on_a_cluster,
        undo_of_a_decision_on_a_cluster,
    ],
)
def test_a_crash_after_any_statement_leaves_all_or_nothing(prepare, admin):
    admin.may_merge()  # what a person may do is read once and kept
    act = prepare(admin)
    before, count = everything(), statements_of(act)
    assert everything() == before
    assert count > 8

    for statement in range(1, count + 1):
        with connection.execute_wrapper(KilledAfter(statement)), pytest.raises(Killed):
            act()
        connection.close()
        assert everything() == before, f"after statement {statement} of {count}"

    act()

    assert everything() != before
    assert merging.broken_pointers() == []
