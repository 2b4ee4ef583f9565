from dataclasses import astuple, replace
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from dedup import desk, flagging, review
from dedup.decision import Sampled, ScoredCandidate
from dedup.flagging import Findings
from dedup.ml.pairs import AlignedWords, SettledBy
from dedup.models import Flag, Score
from dedup.texts import text_of
from support import asking, merging, outbox
from support.models import OutboxEntry, Question
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db

NOW = timezone.now()
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def release():
    return ReleaseFactory(is_active=True, threshold=0.8)


@pytest.fixture
def pair():
    return QuestionFactory.create_batch(2)


def found(question, *others, release, probability=0.95, aligned=None, share=None):
    """What a check of `question` found, all others equally likely; drawn, with a share."""
    texts = {other.pk: text_of(other) for other in others}
    scored = [
        ScoredCandidate(other.pk, other.root_id, texts[other.pk].hash, 3.0, 0.9, probability)
        for other in others
    ]
    likely = [candidate for candidate in scored if candidate.probability >= release.threshold]
    sampled = [Sampled(candidate, share) for candidate in scored if share]
    return Findings(text_of(question), texts, scored, likely, release, aligned or {}, sampled)


def check(question, *others, now=NOW, **given):
    for row in (question, *others):
        row.refresh_from_db()
    flagging.write(found(question, *others, **given), now=now)


def edit(question, title):
    question.refresh_from_db()
    return asking.edit_question(
        question=question, title=title, body="", audience="public",
        by=question.asked_by, seen=question.version, now=LATER,
    )  # fmt: skip


def status_of(pair):
    return Flag.objects.get(older=pair[0], newer=pair[1]).status


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_likely_pair_is_flagged_once_older_before_newer_whichever_is_checked(
    pair, release, newest_first
):
    older, newer = pair
    for _ in range(2):
        check(*(reversed(pair) if newest_first else pair), release=release)

    flag = Flag.objects.get()
    assert (flag.older, flag.newer, flag.status) == (older, newer, "open")
    assert (flag.probability, flag.release) == (0.95, release)
    assert (flag.older_hash, flag.newer_hash) == (text_of(older).hash, text_of(newer).hash)


def test_all_scores_are_kept_with_their_release_also_of_what_is_not_flagged(pair, release):
    check(*pair, release=release, probability=0.3)
    check(*pair, release=release, probability=0.4)

    score = Score.objects.get()
    assert (score.older, score.newer, score.probability) == (*pair, 0.4)
    assert score.release == release
    assert not Flag.objects.exists()


def test_a_score_says_who_settled_it_last(pair, release):
    for logit, settled_by in ((None, SettledBy.COSINE), (3.0, SettledBy.CROSS_ENCODER)):
        findings = found(*pair, release=release, probability=0.3)
        scored = [replace(one, logit=logit, settled_by=settled_by) for one in findings.scored]
        flagging.write(replace(findings, scored=scored), now=NOW)

        score = Score.objects.get()
        assert (score.logit, score.settled_by) == (logit, settled_by)


def test_an_open_flag_follows_the_newest_check(pair, release):
    check(*pair, release=release, probability=0.85)
    newer_release = ReleaseFactory(threshold=0.8)

    check(*pair, release=newer_release, probability=0.9)

    flag = Flag.objects.get()
    assert (flag.probability, flag.release, flag.status) == (0.9, newer_release, "open")


def test_an_open_flag_is_withdrawn_when_the_pair_is_scored_too_low_and_comes_back(pair, release):
    check(*pair, release=release)
    check(*pair, release=release, probability=0.5)
    assert status_of(pair) == Flag.Status.WITHDRAWN

    check(*pair, release=release)

    assert status_of(pair) == Flag.Status.OPEN


def test_an_open_flag_is_withdrawn_when_its_question_now_reads_otherwise(pair, release):
    check(*pair, release=release)
    edit(pair[1], "Something else")

    check(pair[1], release=release)

    assert status_of(pair) == Flag.Status.WITHDRAWN


def test_aligned_words_are_kept_with_a_flag_and_follow_the_newest_check(pair, release):
    older, newer = pair
    for words in ([AlignedWords("lamp", 0, "light", 1, 0.8)], []):
        check(newer, older, release=release, aligned={older.pk: words})

        assert Flag.objects.get().alignment == [list(astuple(word)) for word in words]

    edit(newer, "Another lamp")
    check(newer, older, release=release)
    assert Flag.objects.get().alignment is None


def test_a_dispute_keeps_aligned_words_only_where_both_texts_are_still_the_same(
    pair, release, admin
):
    older, newer = pair
    check(newer, older, release=release, aligned={older.pk: []})
    merging.merge(duplicate=newer, canonical=older, by=admin)
    newer.refresh_from_db()
    assert desk.dispute(question=newer, by=newer.asked_by, reason="").alignment == []

    Question.objects.filter(pk=older.pk).update(title="Another lamp")
    newer.refresh_from_db()
    assert desk.dispute(question=newer, by=newer.asked_by, reason="").alignment is None


def test_a_pair_that_was_not_scored_this_time_stays_flagged(pair, release):
    check(*pair, release=release)

    check(pair[1], QuestionFactory(), release=release)

    assert status_of(pair) == Flag.Status.OPEN


@pytest.mark.parametrize("which", [0, 1])
def test_a_dismissed_pair_is_asked_again_only_when_one_of_its_texts_changed(
    pair, release, agent, which
):
    check(*pair, release=release)
    said = review.dismiss(flag=Flag.objects.get(), by=agent)
    check(*pair, release=release)
    check(*pair, release=ReleaseFactory(threshold=0.1), probability=0.99)
    assert status_of(pair) == Flag.Status.DISMISSED

    edit(pair[which], "Said otherwise")
    check(*pair, release=release)

    assert status_of(pair) == Flag.Status.OPEN
    assert list(Flag.objects.get().reviews.standing()) == [said]


def test_a_confirmed_pair_is_never_asked_again(pair, release, agent):
    check(*pair, release=release)
    review.confirm(flag=Flag.objects.get(), canonical=pair[0], by=agent)

    edit(pair[1], "Said otherwise")
    check(*pair, release=release)

    assert status_of(pair) == Flag.Status.CONFIRMED


def test_a_check_of_an_older_text_does_not_overrule_who_read_the_newer(pair, release, agent):
    one, other = pair
    check(one, other, release=release)
    stale = found(one, other, release=release)
    edit(other, "Said otherwise")
    review.dismiss(flag=Flag.objects.get(), by=agent)

    flagging.write(stale, now=LATER)

    assert status_of(pair) == Flag.Status.DISMISSED


def test_a_check_of_an_older_text_does_not_withdraw_a_flag_on_the_newer(pair, release):
    one, other = pair
    stale = found(one, other, release=release, probability=0.1)
    edit(other, "Said otherwise")
    check(other, one, release=release)

    flagging.write(stale, now=LATER)

    assert status_of(pair) == Flag.Status.OPEN


def test_a_pair_that_was_merged_and_parted_is_not_flagged_until_a_text_changes(
    pair, release, admin
):
    edge = merging.merge(duplicate=pair[1], canonical=pair[0], by=admin, now=NOW)
    merging.unmerge(merge=edge, by=admin, now=NOW + timedelta(minutes=10))
    check(*pair, release=release)
    assert not Flag.objects.exists()

    edit(pair[0], "Said otherwise")
    check(*pair, release=release)

    assert status_of(pair) == Flag.Status.OPEN


def test_a_merge_that_was_a_slip_keeps_no_pair_from_being_flagged(pair, release, admin):
    edge = merging.merge(duplicate=pair[1], canonical=pair[0], by=admin, now=NOW)
    merging.unmerge(merge=edge, by=admin, now=NOW + timedelta(seconds=20))

    check(*pair, release=release)

    assert status_of(pair) == Flag.Status.OPEN


def test_a_flag_that_a_check_opens_again_is_not_a_dispute_any_more(pair, release, admin):
    merging.merge(duplicate=pair[1], canonical=pair[0], by=admin)
    flag = desk.dispute(question=pair[1], by=pair[1].asked_by, reason="Mine is square")
    review.dismiss(flag=flag, by=admin)
    edit(pair[1], "Said otherwise")

    check(*pair, release=release)

    flag.refresh_from_db()
    assert (flag.status, flag.disputed_at, flag.dispute) == ("open", None, "")


def test_a_dispute_is_not_withdrawn_by_a_check(pair, release, admin):
    merging.merge(duplicate=pair[1], canonical=pair[0], by=admin)
    desk.dispute(question=pair[1], by=pair[1].asked_by, reason="Mine is square")
    edit(pair[1], "Said otherwise")

    check(pair[1], release=release)

    assert status_of(pair) == Flag.Status.OPEN


def test_a_claim_that_was_lost_writes_neither_score_nor_flag(pair, release):
    OutboxEntry.objects.create(question=pair[1])
    (claim,) = outbox.claim(limit=1, now=NOW)
    stale = found(pair[1], pair[0], release=release)
    edit(pair[1], "Said otherwise")

    with pytest.raises(outbox.ClaimLost), outbox.settling(claim):
        flagging.write(stale, now=LATER)

    assert not Flag.objects.exists()
    assert not Score.objects.exists()


@pytest.mark.parametrize("turned", [False, True])
def test_the_database_refuses_a_second_flag_for_a_pair(pair, release, turned):
    older, newer = pair
    FlagFactory(older=older, newer=newer, release=release)
    ends = {"older": newer, "newer": older} if turned else {"older": older, "newer": newer}

    with pytest.raises(IntegrityError, match="flag_once_per_pair"), transaction.atomic():
        FlagFactory(release=release, **ends)


def test_the_database_refuses_a_flag_of_a_question_with_itself(pair, release):
    with pytest.raises(IntegrityError, match="flag_joins_two_questions"), transaction.atomic():
        FlagFactory(older=pair[0], newer=pair[0], release=release)


def lane_of(pair):
    flag = Flag.objects.get(older=pair[0], newer=pair[1])
    return flag.status, flag.lane, flag.asked_share


def test_a_pair_from_below_the_threshold_is_kept_with_how_probable_it_was_to_be_asked(
    pair, release
):
    check(*pair, release=release, probability=0.3, share=0.02)

    assert lane_of(pair) == ("open", "sampled", 0.02)
    assert Flag.objects.get().probability == 0.3


def test_of_two_checks_that_drew_a_pair_the_larger_share_counts(pair, release):
    for share in (0.02, 0.05, 0.01):
        check(*pair, release=release, probability=0.3, share=share)

    assert lane_of(pair) == ("open", "sampled", 0.05)


def test_what_was_drawn_stays_though_the_next_check_does_not_draw_it(pair, release):
    check(*pair, release=release, probability=0.3, share=0.02)
    check(*pair, release=release, probability=0.2)

    assert lane_of(pair) == ("open", "sampled", 0.02)


def test_what_was_drawn_goes_when_its_question_now_reads_otherwise(pair, release):
    check(*pair, release=release, probability=0.3, share=0.05)
    edit(pair[1], "Something else")
    check(pair[1], release=release)
    assert status_of(pair) == Flag.Status.WITHDRAWN

    check(*pair, release=release, probability=0.3, share=0.02)
    assert lane_of(pair) == ("open", "sampled", 0.02)


def test_a_pair_that_rises_to_the_threshold_is_a_flag_like_any(pair, release):
    check(*pair, release=release, probability=0.3, share=0.02)
    check(*pair, release=release, probability=0.9, now=LATER)

    assert lane_of(pair) == ("open", "flagged", 1.0)
    assert Flag.objects.get().flagged_at == LATER


def test_a_flag_that_falls_below_the_threshold_may_be_drawn_like_any_pair(pair, release):
    check(*pair, release=release)
    check(*pair, release=release, probability=0.3, share=0.02)

    assert lane_of(pair) == ("open", "sampled", 0.02)


def test_a_disputed_merge_waits_for_all_to_see_whether_its_pair_is_drawn_or_was(
    pair, release, admin
):
    check(*pair, release=release, probability=0.3, share=0.02)
    review.confirm(flag=Flag.objects.get(), canonical=pair[0], by=admin)
    desk.dispute(question=pair[1], by=pair[1].asked_by, reason="Mine is square")
    assert lane_of(pair) == ("open", "flagged", 0.02)

    check(*pair, release=release, probability=0.3, share=0.02)
    assert lane_of(pair) == ("open", "flagged", 0.02)


def test_a_pair_that_a_person_judged_is_not_drawn_again_until_a_text_changes(pair, release, agent):
    check(*pair, release=release, probability=0.3, share=0.02)
    review.dismiss(flag=Flag.objects.get(), by=agent)
    check(*pair, release=release, probability=0.3, share=0.01)
    assert lane_of(pair) == ("dismissed", "sampled", 0.02)

    edit(pair[0], "Said otherwise")
    check(*pair, release=release, probability=0.3, share=0.05)
    assert lane_of(pair) == ("open", "sampled", 0.05)


@pytest.mark.parametrize(
    ("lane", "share", "probability", "drawn", "expected"),
    [
        ("chosen", None, 0.3, 0.05, ("sampled", 0.05)),
        ("chosen", None, 0.9, None, ("flagged", 1.0)),
        ("chosen", None, 0.3, None, ("chosen", None)),  # no check would ask about it
        ("flagged", None, 0.3, 0.05, ("sampled", 0.05)),  # people had asked
        ("sampled", 0.02, 0.3, 0.05, ("sampled", 0.05)),
        ("sampled", 0.02, 0.9, None, ("sampled", 1.0)),
        ("flagged", 1.0, 0.3, 0.05, ("flagged", 1.0)),
    ],
)
def test_a_decided_pair_that_a_check_would_ask_about_belongs_to_the_sample(
    pair, release, agent, lane, share, probability, drawn, expected
):
    flag = FlagFactory(
        older=pair[0], newer=pair[1], release=release, lane=lane, asked_share=share, probability=0.2
    )
    review.dismiss(flag=flag, by=agent)
    check(*pair, release=release, probability=probability, share=drawn)

    assert lane_of(pair) == ("dismissed", *expected)


def test_a_chosen_pair_waits_as_such_until_a_check_draws_it(pair, release):
    FlagFactory(
        older=pair[0], newer=pair[1], release=release, lane="chosen", asked_share=None,
        older_hash=text_of(pair[0]).hash, newer_hash=text_of(pair[1]).hash,
    )  # fmt: skip
    check(*pair, release=release, probability=0.2)
    assert lane_of(pair) == ("open", "chosen", None)  # a check takes nothing back

    check(*pair, release=release, probability=0.3, share=0.02)
    assert lane_of(pair) == ("open", "sampled", 0.02)


@pytest.mark.parametrize("share", [0, 1.01])
def test_no_share_is_refused_but_none_at_all(pair, release, share):
    with pytest.raises(IntegrityError, match="flag_asked_share_is_share"), transaction.atomic():
        FlagFactory(older=pair[0], newer=pair[1], release=release, asked_share=share)


def test_what_is_drawn_wakes_nothing_that_waits_for_more_of_its_kind(pair, release, agent):
    asleep = FlagFactory(older=pair[0])
    review.snooze(flag=asleep, by=agent, until=LATER, more=2, now=NOW)
    check(*pair, release=release, probability=0.3, share=0.02)

    asleep.refresh_from_db()
    assert asleep.snoozed_left == 2


@pytest.mark.parametrize("size", [1, 20])
def test_findings_are_written_in_as_many_queries_however_many_there_are(
    size, release, django_assert_max_num_queries
):
    question, others = QuestionFactory(), QuestionFactory.create_batch(size)
    findings = found(question, *others, release=release, probability=0.5)

    with django_assert_max_num_queries(4):
        flagging.write(findings, now=NOW)

    assert Score.objects.count() == size
