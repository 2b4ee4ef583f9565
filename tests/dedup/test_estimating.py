from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from dedup import desk, estimating, feedback, review
from dedup.models import Flag, Release, Score
from dedup.texts import text_of
from support import outbox
from support.models import Question
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory
from tests.fakes import FakeScorer

pytestmark = pytest.mark.django_db

NOW = timezone.now()


@pytest.fixture
def release():
    return ReleaseFactory(is_active=True, threshold=0.5, added_at=NOW - timedelta(days=9))


def flags(release, count, **given):
    made = []
    for _ in range(count):
        older, newer = QuestionFactory.create_batch(2)
        texts = {"older_hash": text_of(older).hash, "newer_hash": text_of(newer).hash}
        made.append(FlagFactory(older=older, newer=newer, release=release, **texts, **given))
    return made


def judge(some, by, *, is_same=False):
    for flag in some:
        if is_same:
            review.confirm(flag=flag, canonical=flag.older, by=by)
        else:
            review.dismiss(flag=flag, by=by)


def drawn(release, count, **given):
    return flags(release, count, lane="sampled", asked_share=0.1, probability=0.1, **given)


@pytest.fixture
def judged(release, agent):
    """20 flags, of which 15 are right; 21 drawn pairs, of which one is a duplicate."""
    judge(flags(release, 15), agent, is_same=True)
    judge(flags(release, 5, probability=0.6), agent)
    judge(drawn(release, 20), agent)
    judge(drawn(release, 1), agent, is_same=True)


def test_what_was_drawn_stands_for_what_was_not(judged, release):
    found = estimating.cases().quality()

    assert (found.threshold, found.judged, found.drawn) == (0.5, 41, 21)
    assert found.recall.value == pytest.approx(15 / (15 + 10))
    assert found.precision.value == 15 / 20
    assert found.recall.low < 0.5 < found.recall.high < 1


def test_flags_alone_tell_nothing_of_what_was_overlooked(release, agent):
    judge(flags(release, 25), agent, is_same=True)
    found = estimating.cases().quality()

    assert found.recall is None
    assert found.precision.value == 1.0


def test_it_is_estimated_at_any_threshold(judged):
    cases = estimating.cases()

    assert cases.quality(0.05).recall is None  # nothing below it was judged
    assert cases.quality(0.7).recall.value == pytest.approx(15 / 25)
    assert cases.quality(0.7).precision is None  # of 15 flags
    assert cases.quality(0.05).precision.value == pytest.approx(25 / (20 + 210))


@pytest.mark.parametrize("lane", ["chosen", "flagged"])
def test_what_no_check_asked_about_moves_nothing(judged, release, agent, lane):
    before = estimating.cases().quality()
    for probability, is_same in ((0.9, False), (0.1, True)):
        some = flags(release, 4, lane=lane, asked_share=None, probability=probability)
        judge(some, agent, is_same=is_same)

    assert len(feedback.labels()) == 41 + 8
    assert estimating.cases().quality() == before


def test_merges_made_by_hand_move_nothing(judged, admin):
    before = estimating.cases().quality()
    desk.merge(duplicate=QuestionFactory(), canonical=QuestionFactory(), by=admin)

    assert len(feedback.labels()) == 42
    assert estimating.cases().quality() == before


def test_drawn_pairs_that_wait_are_made_up_for_by_those_that_were_judged(judged, release):
    drawn(release, 21)
    found = estimating.cases()

    assert found.waiting == 21
    assert found.quality().recall.value == pytest.approx(15 / (15 + 20))
    assert found.quality().precision.value == 15 / 20


def test_flags_that_wait_are_made_up_for_by_those_of_about_their_probability(release, agent):
    judge(flags(release, 20, probability=0.9), agent, is_same=True)
    judge(flags(release, 10, probability=0.6), agent, is_same=True)
    judge(flags(release, 10, probability=0.6), agent)
    flags(release, 40, probability=0.59)
    found = estimating.cases().quality()

    assert found.precision.value == pytest.approx((20 + 30) / (20 + 60))


def test_what_a_text_change_or_a_merge_took_out_waits_for_nobody(judged, release, admin):
    open_flags = flags(release, 3)
    Flag.objects.filter(pk=open_flags[0].pk).update(status="withdrawn")
    Question.objects.filter(pk=open_flags[0].older_id).update(edited_at=NOW + timedelta(days=1))
    desk.merge(duplicate=open_flags[1].newer, canonical=open_flags[1].older, by=admin)

    assert estimating.cases().waiting == 1


def test_a_flag_that_a_later_release_withdrew_was_asked_and_not_judged(judged, release):
    (flag,) = flags(release, 1)
    Flag.objects.filter(pk=flag.pk).update(status="withdrawn", decided_at=NOW)

    assert estimating.cases().waiting == 1


def test_another_release_is_measured_by_what_it_says_itself(judged):
    other, scorer = ReleaseFactory(added_at=NOW - timedelta(days=5)), FakeScorer()
    assert estimating.cases(other).unscored == 41

    assert estimating.score_labels(other, scorer, now=NOW) == 41

    found = estimating.cases(other)
    assert (found.unscored, len(found.labels)) == (0, 41)
    told = {(one.older_id, one.newer_id): one.probability for one in Score.objects.all()}
    assert len(told) == 41
    ends = [(one.older_id, one.newer_id) for one in found.labels]
    assert found.sample.probabilities.tolist() == [told[pair] for pair in ends]
    assert estimating.score_labels(other, scorer) == 0


def test_scores_of_other_texts_are_not_taken(judged):
    other = ReleaseFactory()
    estimating.score_labels(other, FakeScorer())
    Score.objects.update(older_hash="of another text")

    assert estimating.cases(other).unscored == 41


def test_what_a_release_may_have_learned_from_does_not_measure_it(judged, release):
    Release.objects.filter(pk=release.pk).update(added_at=NOW + timedelta(days=1))
    release.refresh_from_db()
    held = [one for one in feedback.labels() if one.part == "hold"]

    found = estimating.cases(release)
    assert [(one.older_id, one.newer_id) for one in found.labels] == [
        (one.older_id, one.newer_id) for one in held
    ]
    assert 0 < len(held) < 41


def test_segments_share_out_all_that_was_measured_with(judged):
    found = estimating.cases().by_segment()

    assert set(found) == {"product", "language", "length", "account", "asker"}
    assert found["product"]["lamp"] == estimating.cases().quality()
    assert {sum(each.judged for each in values.values()) for values in found.values()} == {41}


@pytest.mark.parametrize("size", [1, 10])
def test_a_measurement_takes_as_many_queries_however_much_was_judged(
    release, agent, size, django_assert_num_queries
):
    judge(flags(release, size), agent)
    drawn(release, size)
    with django_assert_num_queries(8):
        estimating.cases().by_segment()


def test_chances_are_of_being_asked_and_judged_by_now():
    judged = [(0.1, 0.2)] * 3 + [(0.9, 1.0)] * 20 + [(0.6, 1.0)] * 20
    waiting = [(0.1, 0.2)] * 9 + [(0.61, 1.0)] * 20
    found = estimating.chances(judged, waiting)

    assert found[:3] == pytest.approx([0.2 * 3 / 12] * 3)
    assert found[3:] == [1.0] * 20 + [0.5] * 20
    assert estimating.chances([], waiting) == []


def test_where_all_is_judged_chances_are_what_they_were():
    rng = np.random.default_rng(3)
    judged = [(float(p), 1.0 if p > 0.5 else 0.3) for p in rng.random(200)]

    assert estimating.chances(judged, []) == [share for _, share in judged]


def test_a_second_opinion_does_not_make_a_learned_pair_unseen(judged, release):
    label = replace(feedback.labels()[0], part="train")
    release.added_at = label.said_at + timedelta(days=1)
    later = replace(label, said_at=release.added_at + timedelta(days=1))

    assert not estimating.is_unseen(later, release)
    assert estimating.is_unseen(replace(later, first_said_at=later.said_at), release)


def test_what_a_student_said_of_an_older_text_is_replaced(judged):
    other = ReleaseFactory()
    estimating.score_labels(other, FakeScorer())
    Score.objects.update(older_hash="of another text", settled_by="student", logit=None)

    assert estimating.score_labels(other, FakeScorer()) == 41
    assert {one.settled_by for one in Score.objects.all()} == {"cross-encoder"}


def test_judged_pairs_are_scored_after_questions_that_wait(judged):
    outbox.put(QuestionFactory())

    assert estimating.score_labels(ReleaseFactory(), FakeScorer()) == 0
