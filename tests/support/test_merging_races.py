"""Races of merges with real connections that start at the same moment. The number of rounds is
`ASKONCE_ROUNDS` (CI runs few of them; a release is preceded by 200)."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from dedup import desk, flagging, review
from dedup.decision import ScoredCandidate
from dedup.flagging import Findings
from dedup.models import Flag, Review, Score
from dedup.texts import text_of
from support import answering, asking, merging, outbox, thread
from support.models import Merge, OutboxEntry, Question
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = int(os.environ.get("ASKONCE_ROUNDS", "40"))
FEW = max(10, ROUNDS // 4)


def raced(*actions):
    """Start all actions at once, each on its own connection; what each returned or raised."""
    start = threading.Barrier(len(actions), timeout=30)

    def run(action):
        try:
            connection.ensure_connection()
            start.wait()
            return action()
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


def merging_of(duplicate, canonical, by):
    return lambda: merging.merge(duplicate=duplicate, canonical=canonical, by=by)


def kinds(results):
    return sorted(type(result).__name__ for result in results)


def root_of(question):
    return Question.objects.get(pk=question.pk).root_id


@pytest.fixture
def asker():
    return UserFactory()


@pytest.fixture
def pairs(asker):
    """Fresh pairs of questions, older first, as many as are asked for."""

    def draw(count):
        for _ in range(count):
            yield QuestionFactory.create_batch(2, asked_by=asker)

    return draw


def test_of_two_opposite_merges_one_wins_and_the_other_is_refused(pairs, admin):
    for one, other in pairs(ROUNDS):
        results = raced(merging_of(one, other, admin), merging_of(other, one, admin))

        assert kinds(results) == ["Merge", "NotLive"]
    assert merging.broken_pointers() == []
    assert Merge.objects.count() == ROUNDS


def test_merges_in_a_circle_leave_a_flat_forest(pairs, admin):
    for _ in range(FEW):
        a, b, c = QuestionFactory.create_batch(3, asked_by=admin)
        leaves = [QuestionFactory(asked_by=admin) for _ in range(3)]
        for leaf, root in zip(leaves, (a, b, c), strict=True):
            merging.merge(duplicate=leaf, canonical=root, by=admin)

        results = raced(*(merging_of(x, y, admin) for x, y in ((a, b), (b, c), (c, a))))

        assert set(kinds(results)) <= {"Merge", "NotLive"}
        assert 1 <= sum(isinstance(result, Merge) for result in results) <= 2
    assert merging.broken_pointers() == []


def test_the_same_merge_twenty_times_at_once_is_one_edge(pairs, admin):
    for older, newer in pairs(3):
        results = raced(*[merging_of(newer, older, admin)] * 20)

        assert kinds(results) == ["Merge"] * 20
        assert len({edge.pk for edge in results}) == 1
    assert Merge.objects.count() == 3


def test_an_answer_that_meets_a_merge_is_in_the_thread(pairs, admin, asker):
    for older, newer in pairs(FEW):
        # The duplicate has the lower id: locks taken as they come would wait in a circle.
        said, edge = raced(
            lambda q=older: answering.post_answer(question=q, body="Turn it.", by=asker),
            merging_of(older, newer, admin),
        )

        assert kinds([said, edge]) == ["Answer", "Merge"]
        assert [a.answer for a in thread.read(newer, asker).answers] == [said]


def test_an_answer_to_a_duplicate_meets_the_merge_of_its_canonical(admin, asker):
    for _ in range(FEW):
        leaf, top, middle = QuestionFactory.create_batch(3, asked_by=asker)
        merging.merge(duplicate=leaf, canonical=middle, by=admin)

        results = raced(
            lambda q=leaf: answering.post_answer(question=q, body="Turn it.", by=asker),
            merging_of(middle, top, admin),
        )

        assert kinds(results) == ["Answer", "Merge"]
        assert results[0].question_id in {middle.pk, top.pk}
        assert len(thread.read(top, asker).answers) == 1


def test_an_unmerge_below_meets_a_merge_above(admin, asker):
    for _ in range(FEW):
        leaf, middle, top = QuestionFactory.create_batch(3, asked_by=asker)
        lower = merging.merge(duplicate=leaf, canonical=middle, by=admin)

        results = raced(
            lambda edge=lower: merging.unmerge(merge=edge, by=admin),
            merging_of(middle, top, admin),
        )

        assert kinds(results) == ["Merge", "Merge"]
        assert (root_of(leaf), root_of(middle)) == (leaf.pk, top.pk)
    assert merging.broken_pointers() == []


def test_an_unmerge_meets_the_same_merge_again(pairs, admin):
    for older, newer in pairs(FEW):
        edge = merging.merge(duplicate=newer, canonical=older, by=admin)

        results = raced(
            lambda edge=edge: merging.unmerge(merge=edge, by=admin),
            merging_of(newer, older, admin),
        )

        assert kinds(results) == ["Merge", "Merge"]
        is_merged = Merge.objects.in_force().filter(duplicate=newer).exists()
        assert (root_of(newer) == older.pk) == is_merged
    assert merging.broken_pointers() == []


def test_a_change_of_audience_that_meets_a_merge_never_shows_a_text_to_others(pairs, admin, asker):
    for older, newer in pairs(FEW):
        results = raced(
            lambda q=newer: asking.edit_question(
                question=q, title="T", body="", audience="private", by=asker, seen=1
            ),
            merging_of(newer, older, admin),
        )

        assert kinds(results) in (["AudienceDiffers", "Question"], ["AudienceFixed", "Merge"])


def test_of_confirm_and_dismiss_the_second_is_told_that_the_flag_is_closed(pairs, admin, agent):
    release = ReleaseFactory()
    for older, newer in pairs(FEW):
        flag = FlagFactory(older=older, newer=newer, release=release)

        results = raced(
            lambda f=flag: review.confirm(flag=f, canonical=f.older, by=admin),
            lambda f=flag: review.dismiss(flag=f, by=agent),
        )

        assert kinds(results) == ["FlagClosed", "Review"]
        said = next(result for result in results if isinstance(result, Review))
        flag.refresh_from_db()
        assert (flag.status, flag.reviews.count()) == (said.verdict, 1)
        assert (root_of(newer) == older.pk) == (said.verdict == Review.Verdict.CONFIRMED)


def findings_of(question, other, release):
    text, near = text_of(question), text_of(other)
    candidate = ScoredCandidate(other.pk, other.root_id, near.hash, 3.0, 0.9, 0.95)
    return Findings(text, {other.pk: near}, [candidate], [candidate], release, {})


def test_a_check_that_settles_while_its_questions_are_merged_writes_one_flag(pairs, admin):
    release = ReleaseFactory()
    for older, newer in pairs(FEW):
        OutboxEntry.objects.create(question=newer)
        (claim,) = outbox.claim(limit=1, now=timezone.now())
        found = findings_of(newer, older, release)

        def settle(claim=claim, found=found):
            with outbox.settling(claim):
                flagging.write(found, now=timezone.now())

        results = raced(settle, merging_of(newer, older, admin))

        assert kinds(results) == ["Merge", "NoneType"]
        assert OutboxEntry.objects.get(question=newer).settled_at
        assert Flag.objects.filter(older=older, newer=newer).count() == 1
        assert Score.objects.filter(older=older, newer=newer).count() == 1


def test_two_checks_of_one_pair_write_one_flag(pairs):
    release = ReleaseFactory()
    for older, newer in pairs(FEW):
        OutboxEntry.objects.create(question=newer)
        OutboxEntry.objects.create(question=older)
        claims = {c.question_id: c for c in outbox.claim(limit=2, now=timezone.now())}

        def settle(one, other, claims=claims):
            with outbox.settling(claims[one.pk]):
                flagging.write(findings_of(one, other, release), now=timezone.now())

        results = raced(
            merging.retried(lambda a=older, b=newer: settle(a, b)),
            merging.retried(lambda a=older, b=newer: settle(b, a)),
        )

        assert kinds(results) == ["NoneType", "NoneType"]
        assert Flag.objects.filter(older=older, newer=newer).count() == 1


def test_an_undo_meets_an_unmerge_by_somebody_else(pairs, admin):
    release, now = ReleaseFactory(), timezone.now()
    for older, newer in pairs(FEW):
        flag = FlagFactory(older=older, newer=newer, release=release)
        said = review.confirm(flag=flag, canonical=older, by=admin, now=now)

        results = raced(
            lambda r=said: review.undo(review=r, by=admin),
            lambda r=said: desk.unmerge(merge=r.merge, by=admin, now=now + timedelta(hours=1)),
        )

        assert "Merge" in kinds(results)
        assert set(kinds(results)) <= {"Flag", "Merge", "NotYours"}
        assert root_of(newer) == newer.pk


def until_somebody_waits_for_a_lock():
    """Look until another connection waits; whoever holds the lock goes on only then."""
    deadline = time.monotonic() + 30
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute(waiting)
            if cursor.fetchone()[0]:
                return
    raise TimeoutError("nobody waited")


def test_a_check_waits_for_an_edit_and_then_knows_that_it_read_an_older_text(pairs, asker):
    ((older, newer),) = pairs(1)
    OutboxEntry.objects.create(question=newer)
    (claim,) = outbox.claim(limit=1, now=timezone.now())
    found = findings_of(newer, older, ReleaseFactory())
    edited = threading.Event()

    def edit():
        with transaction.atomic():
            asking.edit_question(
                question=older, title="Said otherwise", body="", audience="public", by=asker, seen=1
            )
            edited.set()
            until_somebody_waits_for_a_lock()

    def settle():
        assert edited.wait(30)
        with outbox.settling(claim):
            flagging.write(found, now=timezone.now())

    assert raced(edit, settle) == [None, None]
    assert not Flag.objects.exists()
