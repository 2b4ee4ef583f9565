from datetime import timedelta

import pytest
from django.utils import timezone

from dedup import desk, queue, review
from dedup.models import Flag, Review
from dedup.texts import text_of
from support import asking, merging
from support.models import Question
from tests.factories import FlagFactory, ProductFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db

NOW = timezone.now()
SOON = NOW + timedelta(seconds=20)
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def flag():
    return FlagFactory(release=ReleaseFactory(is_active=True), probability=0.93)


def root_of(question):
    return Question.objects.get(pk=question.pk).root_id


def confirm(flag, by, **given):
    return review.confirm(flag=flag, canonical=flag.older, by=by, **{"now": NOW} | given)


def edit(question):
    return asking.edit_question(
        question=question, title="Said otherwise", body="", audience="public",
        by=question.asked_by, seen=question.version,
    )  # fmt: skip


def fresh(flag):
    return Flag.objects.get(pk=flag.pk)


def test_a_confirmation_by_an_admin_merges_at_once_with_the_evidence(flag, admin):
    said = confirm(flag, admin)

    assert root_of(flag.newer) == flag.older_id
    assert (said.merge.probability, said.merge.release) == (0.93, flag.release.name)
    assert (said.verdict, said.canonical, fresh(flag).status) == (
        "confirmed", flag.older, "confirmed",
    )  # fmt: skip


def test_a_confirmation_by_an_agent_with_a_grant_on_one_side_waits(flag, agent):
    Question.objects.filter(pk=flag.newer_id).update(product=ProductFactory(slug="kettle"))
    agent.merge_grants.create(product=flag.older.product)

    said = confirm(flag, agent)

    assert said.merge is None
    assert list(Flag.objects.to_merge()) == [flag]


def test_a_confirmation_by_an_agent_with_the_grants_merges(flag, agent):
    agent.merge_grants.create(product=flag.older.product)

    assert confirm(flag, agent).merge.merged_by == agent


def test_what_is_merged_are_the_live_questions_of_both_threads(flag, admin):
    top = QuestionFactory()
    merging.merge(duplicate=flag.older, canonical=top, by=admin)

    said = confirm(flag, admin)

    assert (said.canonical, root_of(flag.newer)) == (top, top.pk)


def test_a_question_of_neither_thread_cannot_be_the_one_that_stays(flag, admin):
    with pytest.raises(review.NotOfPair):
        review.confirm(flag=flag, canonical=QuestionFactory(), by=admin)

    assert fresh(flag).status == Flag.Status.OPEN


@pytest.mark.parametrize(
    "decide", [confirm, lambda flag, by, seen: review.dismiss(flag=flag, by=by, seen=seen)]
)
def test_a_decision_on_a_page_that_is_stale_is_refused_whoever_takes_it(flag, agent, decide):
    edit(flag.newer)

    with pytest.raises(merging.Stale):
        decide(flag, agent, seen={flag.newer_id: 1})

    assert fresh(flag).status == Flag.Status.OPEN
    assert not Review.objects.exists()


@pytest.mark.parametrize("first", ["confirm", "dismiss"])
def test_the_second_decision_is_told_who_decided_what(flag, agent, admin, first):
    said = confirm(flag, admin) if first == "confirm" else review.dismiss(flag=flag, by=admin)

    for act in (lambda: confirm(flag, agent), lambda: review.dismiss(flag=flag, by=agent)):
        with pytest.raises(review.FlagClosed) as refused:
            act()
        assert (refused.value.last, refused.value.last.by) == (said, admin)
    assert flag.reviews.count() == 1


def test_a_decision_is_kept_on_the_texts_that_were_read(flag, agent):
    edit(flag.newer)
    flag.newer.refresh_from_db()

    said = review.dismiss(flag=flag, by=agent)

    read = (text_of(flag.older).hash, text_of(flag.newer).hash)
    assert (said.older_hash, said.newer_hash) == read
    assert (fresh(flag).older_hash, fresh(flag).newer_hash) == read


def test_a_card_is_held_by_one_reviewer_for_five_minutes(flag, agent, admin):
    assert queue.claim(flag=flag, by=agent, now=NOW)
    assert queue.claim(flag=flag, by=agent, now=NOW)
    assert not queue.claim(flag=flag, by=admin, now=NOW + timedelta(minutes=4))
    assert queue.claim(flag=flag, by=admin, now=NOW + timedelta(minutes=6))


def test_two_reviewers_never_get_the_same_card(flag, agent, admin):
    other = FlagFactory(release=flag.release, probability=0.8)

    assert queue.claim_next(agent, now=NOW) == [flag]
    assert queue.claim_next(admin, now=NOW) == [other]
    assert queue.claim_next(agent, now=NOW) == [flag]


def test_what_a_reviewer_skips_goes_to_others_and_comes_back_after_a_day(flag, agent, admin):
    queue.claim(flag=flag, by=agent, now=NOW)
    review.skip(flag=flag, by=agent, now=NOW)

    assert queue.claim_next(agent, now=NOW) == []
    assert queue.claim_next(admin, now=NOW) == [flag]
    assert list(queue.queue(agent, now=NOW + timedelta(days=1))) == [flag]


def test_a_decided_card_cannot_be_claimed_or_skipped(flag, agent):
    review.dismiss(flag=flag, by=agent)

    assert not queue.claim(flag=flag, by=agent)
    with pytest.raises(review.FlagClosed):
        review.skip(flag=flag, by=agent)


def test_the_queue_is_in_order_of_probability(flag, agent):
    likelier = FlagFactory(release=flag.release, probability=0.99)
    equal = FlagFactory(release=flag.release, probability=0.93)

    assert list(queue.queue(agent)) == [likelier, flag, equal]


def test_a_skipped_pair_of_threads_is_not_shown_by_its_next_likely_questions(flag, agent, admin):
    third = QuestionFactory()
    FlagFactory(older=flag.older, newer=third, release=flag.release, probability=0.9)
    merging.merge(duplicate=third, canonical=flag.newer, by=admin)

    review.skip(flag=flag, by=agent, now=NOW)

    assert list(queue.queue(agent, now=NOW)) == []
    assert list(queue.queue(admin, now=NOW)) == [flag]


def test_an_open_flag_within_a_thread_does_not_hide_a_dispute(flag, agent, admin):
    merging.merge(duplicate=flag.newer, canonical=flag.older, by=admin)
    disputes = []
    for _ in range(2):
        question = QuestionFactory()
        merging.merge(duplicate=question, canonical=flag.older, by=admin)
        by = question.asked_by
        disputes.append(desk.dispute(question=question, by=by, reason="", now=NOW))

    assert set(queue.queue(agent)) == set(disputes)


@pytest.mark.parametrize("size", [1, 25])
def test_the_queue_is_read_in_one_query_however_long(size, agent, django_assert_num_queries):
    release = ReleaseFactory()
    FlagFactory.create_batch(size, release=release)

    with django_assert_num_queries(1):
        rows = [
            (flag.older.title, flag.newer.product.name, flag.release.name)
            for flag in queue.queue(agent)
        ]

    assert len(rows) == size
