from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from support import merging
from support.models import Merge, Question
from tests.factories import (
    AnswerFactory,
    ProductFactory,
    QuestionFactory,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def pair():
    return QuestionFactory(), QuestionFactory()


def canonical_of(question):
    return Question.objects.get(pk=question.pk).canonical_id


def test_a_merge_points_the_duplicate_at_the_canonical_and_moves_nothing(pair, admin):
    canonical, duplicate = pair
    answer = AnswerFactory(question=duplicate)

    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    answer.refresh_from_db()
    assert canonical_of(duplicate) == canonical.pk
    assert answer.question_id == duplicate.pk
    assert merging.broken_pointers() == []


def test_the_database_refuses_a_pointer_at_a_merged_question(pair, admin):
    canonical, duplicate = pair
    third = QuestionFactory()
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    with pytest.raises(IntegrityError, match="question_canonical_is_live"), transaction.atomic():
        Question.objects.filter(pk=third.pk).update(canonical=duplicate)


def test_the_database_refuses_to_merge_away_a_canonical_alone(pair, admin):
    canonical, duplicate = pair
    third = QuestionFactory()
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    with pytest.raises(IntegrityError, match="question_canonical_is_live"), transaction.atomic():
        Question.objects.filter(pk=canonical.pk).update(canonical=third)


def test_the_database_refuses_a_question_as_its_own_canonical(pair):
    with pytest.raises(IntegrityError), transaction.atomic():
        Question.objects.filter(pk=pair[0].pk).update(canonical=pair[0])


def test_the_database_refuses_a_second_merge_in_force_for_one_duplicate(pair, admin):
    canonical, duplicate = pair
    Merge.objects.create(duplicate=duplicate, canonical=canonical, merged_by=admin)

    with pytest.raises(IntegrityError, match="merge_one_in_force"), transaction.atomic():
        Merge.objects.create(duplicate=duplicate, canonical=QuestionFactory(), merged_by=admin)


def test_a_merge_takes_the_duplicates_of_its_duplicate_along(admin):
    leaf, middle, top = QuestionFactory.create_batch(3)
    merging.merge(duplicate=leaf, canonical=middle, by=admin)

    merging.merge(duplicate=middle, canonical=top, by=admin)

    assert (canonical_of(leaf), canonical_of(middle)) == (top.pk, top.pk)
    assert merging.broken_pointers() == []


def test_unmerging_the_upper_edge_gives_the_subtree_back(admin):
    leaf, middle, top = QuestionFactory.create_batch(3)
    merging.merge(duplicate=leaf, canonical=middle, by=admin)
    upper = merging.merge(duplicate=middle, canonical=top, by=admin)

    merging.unmerge(merge=upper, by=admin)

    assert (canonical_of(leaf), canonical_of(middle)) == (middle.pk, None)


def test_an_unmerge_gives_back_what_lies_levels_below(admin):
    bottom, leaf, middle, top = QuestionFactory.create_batch(4)
    merging.merge(duplicate=bottom, canonical=leaf, by=admin)
    merging.merge(duplicate=leaf, canonical=middle, by=admin)
    upper = merging.merge(duplicate=middle, canonical=top, by=admin)

    merging.unmerge(merge=upper, by=admin)

    assert [canonical_of(q) for q in (bottom, leaf, middle)] == [middle.pk, middle.pk, None]
    assert merging.broken_pointers() == []


def test_unmerging_the_lower_edge_frees_one_question_only(admin):
    leaf, middle, top = QuestionFactory.create_batch(3)
    lower = merging.merge(duplicate=leaf, canonical=middle, by=admin)
    merging.merge(duplicate=middle, canonical=top, by=admin)

    merging.unmerge(merge=lower, by=admin)

    assert (canonical_of(leaf), canonical_of(middle)) == (None, top.pk)
    assert merging.broken_pointers() == []


def test_a_question_is_not_merged_into_itself(pair, admin):
    with pytest.raises(merging.SameQuestion):
        merging.merge(duplicate=pair[0], canonical=pair[0], by=admin)


def test_a_merged_question_is_no_target(pair, admin):
    canonical, duplicate = pair
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    with pytest.raises(merging.NotLive) as refused:
        merging.merge(duplicate=QuestionFactory(), canonical=duplicate, by=admin)

    assert refused.value.details == {"question": duplicate.pk, "canonical": canonical.pk}


def test_a_merged_question_is_not_merged_into_another_as_if_it_were_already(pair, admin):
    canonical, duplicate = pair
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    with pytest.raises(merging.NotLive) as refused:
        merging.merge(duplicate=duplicate, canonical=QuestionFactory(), by=admin)

    assert refused.value.details == {"question": duplicate.pk, "canonical": canonical.pk}


def test_a_merge_says_when_and_why_it_was_made(pair, admin):
    moment = timezone.now() - timedelta(days=3)

    edge = merging.merge(duplicate=pair[1], canonical=pair[0], by=admin, now=moment)

    edge.refresh_from_db()
    assert (edge.merged_at, edge.reason) == (moment, "")


def test_opposite_merges_one_after_the_other_are_refused(pair, admin):
    merging.merge(duplicate=pair[1], canonical=pair[0], by=admin)

    with pytest.raises(merging.NotLive):
        merging.merge(duplicate=pair[0], canonical=pair[1], by=admin)


@pytest.mark.parametrize("audiences", [("public", "private"), ("private", "private")])
def test_questions_of_different_readers_are_not_merged(audiences, admin):
    one, other = (QuestionFactory(audience=audience) for audience in audiences)

    with pytest.raises(merging.AudienceDiffers):
        merging.merge(duplicate=other, canonical=one, by=admin)


def test_two_private_questions_of_one_asker_are_merged(customer, admin):
    one, other = QuestionFactory.create_batch(2, audience="private", asked_by=customer)

    merging.merge(duplicate=other, canonical=one, by=admin)

    assert canonical_of(other) == one.pk


def test_agents_do_not_merge_without_a_grant_on_both_sides(pair, agent):
    canonical, duplicate = pair
    elsewhere = QuestionFactory(product=ProductFactory(slug="kettle"))
    agent.merge_grants.create(product=canonical.product)

    merging.merge(duplicate=duplicate, canonical=canonical, by=agent)

    with pytest.raises(merging.NotAllowed):
        merging.merge(duplicate=elsewhere, canonical=canonical, by=agent)


def test_a_right_over_what_closes_alone_merges_nothing(agent):
    duplicate, canonical = QuestionFactory(), QuestionFactory(product=ProductFactory(slug="kettle"))
    agent.merge_grants.create(product=duplicate.product)

    assert not merging.may_merge(agent, duplicate, canonical)
    with pytest.raises(merging.NotAllowed):
        merging.merge(duplicate=duplicate, canonical=canonical, by=agent)


def test_a_merge_needs_the_right_for_all_that_it_closes(pair, agent, admin):
    canonical, duplicate = pair
    below = QuestionFactory(product=ProductFactory(slug="kettle"))
    agent.merge_grants.create(product=canonical.product)
    lower = merging.merge(duplicate=below, canonical=duplicate, by=admin)

    assert not merging.may_merge(agent, duplicate, canonical)
    with pytest.raises(merging.NotAllowed):
        merging.merge(duplicate=duplicate, canonical=canonical, by=agent)
    with pytest.raises(merging.NotAllowed):
        merging.unmerge(merge=lower, by=agent)

    agent.merge_grants.create(product=below.product)
    edge = merging.merge(duplicate=duplicate, canonical=canonical, by=agent)
    merging.unmerge(merge=edge, by=agent)


def test_unmerge_needs_the_right_where_the_thread_now_stands(pair, agent, admin):
    middle, leaf = pair
    elsewhere = QuestionFactory(product=ProductFactory(slug="kettle"))
    agent.merge_grants.create(product=middle.product)
    edge = merging.merge(duplicate=leaf, canonical=middle, by=agent)
    merging.merge(duplicate=middle, canonical=elsewhere, by=admin)

    with pytest.raises(merging.NotAllowed):
        merging.unmerge(merge=edge, by=agent)

    assert canonical_of(leaf) == elsewhere.pk


def test_a_customer_neither_merges_nor_unmerges(pair, customer, admin):
    canonical, duplicate = pair
    with pytest.raises(merging.NotAllowed):
        merging.merge(duplicate=duplicate, canonical=canonical, by=customer)
    edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    with pytest.raises(merging.NotAllowed):
        merging.unmerge(merge=edge, by=customer)


def test_restoring_puts_the_same_edge_and_its_waiting_mails_back(pair, admin):
    canonical, duplicate = pair
    below = QuestionFactory()
    merging.merge(duplicate=below, canonical=duplicate, by=admin)
    edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    merging.unmerge(merge=edge, by=admin)

    merging.restore(merge=edge, by=admin)
    merging.restore(merge=edge, by=admin)

    assert (canonical_of(duplicate), canonical_of(below)) == (canonical.pk, canonical.pk)
    assert merging.broken_pointers() == []
    assert set(edge.notifications.values_list("status", flat=True)) == {"waiting"}


def test_a_merge_is_restored_to_where_its_canonical_went(pair, admin):
    middle, leaf = pair
    top = QuestionFactory()
    edge = merging.merge(duplicate=leaf, canonical=middle, by=admin)
    merging.unmerge(merge=edge, by=admin)
    merging.merge(duplicate=middle, canonical=top, by=admin)

    merging.restore(merge=edge, by=admin)

    assert canonical_of(leaf) == top.pk
    assert merging.broken_pointers() == []


def test_a_merge_that_was_turned_round_meanwhile_is_not_restored(pair, admin):
    canonical, duplicate = pair
    edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    merging.unmerge(merge=edge, by=admin)
    merging.merge(duplicate=canonical, canonical=duplicate, by=admin)

    with pytest.raises(merging.SameQuestion):
        merging.restore(merge=edge, by=admin)


def test_locking_an_unknown_question_says_so(pair):
    with pytest.raises(Question.DoesNotExist):
        merging.lock_threads(pair[0].pk, 10**9)


def test_a_thread_that_moves_while_it_is_locked_is_looked_at_again(pair, admin, monkeypatch):
    looks = []

    def moving(ids):
        looks.append(set(ids))
        if len(looks) < 3:
            raise merging.ThreadsMoved("moved")
        return {question.pk: question for question in pair}

    monkeypatch.setattr(merging, "_lock", moving)

    assert merging.lock_threads(*(q.pk for q in pair)) == {q.pk: q for q in pair}
    assert len(looks) == 3


def test_a_thread_that_never_stands_still_is_busy(pair, monkeypatch):
    def moving(ids):
        raise merging.ThreadsMoved("moved")

    monkeypatch.setattr(merging, "_lock", moving)

    with pytest.raises(merging.ThreadsMoved):
        merging.lock_threads(pair[0].pk)


def test_broken_pointers_are_seen(pair, admin):
    canonical, duplicate = pair
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    Question.objects.filter(pk=duplicate.pk).update(canonical=None)

    assert merging.broken_pointers() == [duplicate.pk]


def test_of_many_the_oldest_that_is_answered_stays_or_else_the_oldest():
    questions = QuestionFactory.create_batch(3)
    assert merging.choose_canonical(iter(questions)) == questions[0]

    for question in questions[1:]:
        AnswerFactory(question=question)

    assert merging.choose_canonical(iter(questions)) == questions[1]


def test_a_question_stays_for_its_age_or_for_its_answer(pair):
    older, newer = pair

    assert merging.why_stays(newer, older) == "older"
    assert merging.why_stays(older, newer) == "answered"


def test_what_could_not_be_merged_is_refused_before_anybody_tries(pair, admin, customer):
    older, newer = pair
    merging.refuse(newer, older, by=admin)

    with pytest.raises(merging.NotAllowed):
        merging.refuse(newer, older, by=customer)
    with pytest.raises(merging.SameQuestion):
        merging.refuse(older, older, by=admin)


@pytest.mark.django_db(transaction=True)
def test_who_writes_about_questions_keeps_only_those_waiting_who_change_their_threads(pair):
    keys = [question.pk for question in pair]

    def meanwhile():
        try:
            with transaction.atomic():
                merging.lock_keys(keys)
                Question.objects.select_for_update(nowait=True).get(pk=keys[0])
        finally:
            connection.close()

    with transaction.atomic(), ThreadPoolExecutor(1) as pool:
        merging.lock_keys([*reversed(keys), keys[0]])
        with pytest.raises(OperationalError, match="could not obtain lock"):
            pool.submit(meanwhile).result()


def test_a_merge_is_for_the_thread_that_an_answer_to_a_duplicate_made_answered(pair, admin):
    older, newer = pair
    merging.merge(duplicate=AnswerFactory().question, canonical=newer, by=admin)

    assert merging.choose_direction(older, newer) == (older, newer)


def test_who_takes_a_merge_back_and_who_restores_it_are_in_both_histories(pair, admin):
    canonical, duplicate = pair
    now = timezone.now()
    edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin, now=now)
    merging.unmerge(merge=edge, by=admin, now=now)
    merging.restore(merge=edge, by=admin, now=now)

    for question in pair:
        said = question.history.order_by("pk").values_list("action", "by", "at")
        assert list(said) == [(act, admin.pk, now) for act in ("merged", "unmerged", "merged")]


def test_each_refusal_says_why_in_words(pair, admin, customer):
    canonical, duplicate = pair
    hidden = QuestionFactory(audience="private")
    edge = merging.merge(duplicate=QuestionFactory(), canonical=canonical, by=admin)

    def said(act, **given):
        with pytest.raises(merging.MergeRefused) as refused:
            act(**given)
        return str(refused.value)

    def merge(duplicate, by=admin, **given):
        return said(merging.merge, duplicate=duplicate, canonical=canonical, by=by, **given)

    right = "Merging these needs a right that you do not have."
    assert merge(duplicate, by=customer) == right
    assert said(merging.unmerge, merge=edge, by=customer) == right
    assert merge(canonical) == "A question cannot be merged into itself."
    assert merge(hidden) == "Other people may read the one than the other: they stay linked only."
    assert merge(duplicate, seen={duplicate.pk: 7}) == "These questions were edited meanwhile."
    refused = said(merging.merge, duplicate=canonical, canonical=edge.duplicate, by=admin)
    assert refused == "One of these questions is merged already."


class Deadlock(Exception):
    sqlstate = "40P01"


class SerializationFailure(Exception):
    sqlstate = "40001"


class DiskFull(Exception):
    sqlstate = "53100"


def failing(error, *, times):
    """A function that fails so often and then is done; and whether each try had a transaction."""
    tries = []

    @merging.retried
    def act(word):
        tries.append(connection.in_atomic_block)
        if len(tries) > times:
            return word
        if isinstance(error, merging.ThreadsMoved):
            raise error
        raise OperationalError("failed") from error

    return act, tries


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "error", [Deadlock(), SerializationFailure(), merging.ThreadsMoved("moved")]
)
def test_what_met_others_is_tried_three_times_more_after_longer_and_longer_waits(
    error, monkeypatch
):
    waits = []
    monkeypatch.setattr(merging.time, "sleep", waits.append)

    act, tries = failing(error, times=3)
    assert act(word="done") == "done"
    assert tries == [True] * 4
    assert waits == pytest.approx([0.02, 0.04, 0.06])

    act, tries = failing(error, times=4)
    with pytest.raises((OperationalError, merging.ThreadsMoved)):
        act("done")
    assert len(tries) == 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [DiskFull(), None])
def test_another_fault_of_the_database_is_not_tried_again(error):
    act, tries = failing(error, times=1)

    with pytest.raises(OperationalError):
        act("done")

    assert len(tries) == 1


def test_inside_a_transaction_nothing_is_tried_again():
    act, tries = failing(Deadlock(), times=1)

    with pytest.raises(OperationalError):
        act("done")

    assert len(tries) == 1
    assert act("done") == "done"
