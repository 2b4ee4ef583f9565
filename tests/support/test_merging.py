import pytest
from django.db import IntegrityError, connection, transaction

from support import merging, thread
from support.models import AuditEntry, Merge, Notification, Question, Subscription
from tests.factories import (
    AnswerFactory,
    ProductFactory,
    QuestionFactory,
    SubscriptionFactory,
    UserFactory,
    VoteFactory,
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


def test_unmerging_the_lower_edge_frees_one_question_only(admin):
    leaf, middle, top = QuestionFactory.create_batch(3)
    lower = merging.merge(duplicate=leaf, canonical=middle, by=admin)
    merging.merge(duplicate=middle, canonical=top, by=admin)

    merging.unmerge(merge=lower, by=admin)

    assert (canonical_of(leaf), canonical_of(middle)) == (None, top.pk)
    assert merging.broken_pointers() == []


def test_repeating_a_merge_or_an_unmerge_changes_nothing(pair, admin):
    canonical, duplicate = pair
    first = merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    assert merging.merge(duplicate=duplicate, canonical=canonical, by=admin) == first
    merging.unmerge(merge=first, by=admin)
    undone_at = Merge.objects.get().undone_at
    merging.unmerge(merge=first, by=admin)
    assert Merge.objects.get().undone_at == undone_at


def test_a_question_is_not_merged_into_itself(pair, admin):
    with pytest.raises(merging.SameQuestion):
        merging.merge(duplicate=pair[0], canonical=pair[0], by=admin)


def test_a_merged_question_is_no_target(pair, admin):
    canonical, duplicate = pair
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    with pytest.raises(merging.NotLive) as refused:
        merging.merge(duplicate=QuestionFactory(), canonical=duplicate, by=admin)

    assert refused.value.details["canonical"] == canonical.pk


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


def test_a_stale_page_is_told_what_changed(pair, admin):
    canonical, duplicate = pair
    Question.objects.filter(pk=duplicate.pk).update(version=2)

    with pytest.raises(merging.Stale) as refused:
        merging.merge(duplicate=duplicate, canonical=canonical, by=admin, seen={duplicate.pk: 1})

    assert refused.value.details["changed"] == [duplicate.pk]


def test_agents_do_not_merge_without_a_grant_on_both_sides(pair, agent):
    canonical, duplicate = pair
    elsewhere = QuestionFactory(product=ProductFactory(slug="kettle"))
    agent.merge_grants.create(product=canonical.product)

    merging.merge(duplicate=duplicate, canonical=canonical, by=agent)

    with pytest.raises(merging.NotAllowed):
        merging.merge(duplicate=elsewhere, canonical=canonical, by=agent)


def test_the_newer_becomes_the_duplicate_unless_it_alone_is_answered(pair):
    older, newer = pair
    assert merging.choose_direction(older, newer) == (newer, older)

    AnswerFactory(question=newer)
    assert merging.choose_direction(older, newer) == (older, newer)

    AnswerFactory(question=older)
    assert merging.choose_direction(older, newer) == (newer, older)


def test_both_histories_say_who_merged_with_which_probability(pair, admin):
    canonical, duplicate = pair
    evidence = merging.Evidence(probability=0.93, release="minilm")

    merging.merge(duplicate=duplicate, canonical=canonical, by=admin, evidence=evidence)

    entries = AuditEntry.objects.filter(action="merged")
    assert {entry.question_id for entry in entries} == {canonical.pk, duplicate.pk}
    assert {entry.by_id for entry in entries} == {admin.pk}
    assert {entry.details["probability"] for entry in entries} == {0.93}


@pytest.mark.parametrize("statement", ["UPDATE support_auditentry SET action = 'x'", "DELETE FROM support_auditentry"])
def test_the_audit_trail_only_grows(pair, admin, statement):
    merging.merge(duplicate=pair[1], canonical=pair[0], by=admin)

    with pytest.raises(Exception, match="never changed"), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(statement)


def test_a_thread_counts_each_person_once(pair, admin):
    canonical, duplicate = pair
    person = UserFactory()
    for question in pair:
        VoteFactory(question=question, by=person)
        SubscriptionFactory(question=question, subscriber=person)
    VoteFactory(question=duplicate)

    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    read = thread.read(canonical, person)
    assert (read.votes, read.followers) == (2, 1)


def test_unmerge_shows_readers_what_they_saw_before(pair, admin):
    canonical, duplicate = pair
    for question in pair:
        AnswerFactory.create_batch(2, question=question)
        VoteFactory.create_batch(3, question=question)
    before = [thread.read(question, admin) for question in pair]

    edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    assert thread.read(canonical, admin) != before[0]
    merging.unmerge(merge=edge, by=admin)

    assert [thread.read(q, admin).answers for q in pair] == [b.answers for b in before]
    assert [thread.read(q, admin).votes for q in pair] == [b.votes for b in before]


def test_each_person_gets_one_mail_for_a_merge(pair, admin):
    canonical, duplicate = pair
    SubscriptionFactory(question=duplicate, subscriber=duplicate.asked_by)
    follower = SubscriptionFactory(question=duplicate).subscriber

    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    told = list(Notification.objects.values_list("recipient", flat=True))
    assert sorted(told) == sorted([duplicate.asked_by_id, canonical.asked_by_id, follower.pk])


def test_a_preview_says_what_a_merge_then_does(pair, admin):
    canonical, duplicate = pair
    AnswerFactory(question=duplicate)
    SubscriptionFactory(question=canonical)
    preview = merging.preview(duplicate=duplicate, canonical=canonical, by=admin)

    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    read = thread.read(canonical, admin)
    assert preview.answers == len(read.answers)
    assert preview.followers == read.followers
    assert {person.pk for person in preview.mailed} == set(
        Notification.objects.values_list("recipient", flat=True)
    )


def test_every_relation_to_a_question_has_a_merge_rule():
    relations = {
        f"{relation.related_model._meta.label}.{relation.field.name}"
        for relation in Question._meta.related_objects
    }

    assert relations == set(merging.MERGE_RULES)
    assert set(merging.MERGE_RULES.values()) == {"stays", "union", "computed", "carried"} - {"computed"}


def test_no_foreign_key_to_a_question_cascades():
    for relation in Question._meta.related_objects:
        assert relation.on_delete.__name__ == "PROTECT", relation


def test_following_again_after_unmerge_is_not_needed(pair, admin):
    canonical, duplicate = pair
    person = SubscriptionFactory(question=duplicate).subscriber
    edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    merging.unmerge(merge=edge, by=admin)

    assert Subscription.objects.filter(question=duplicate, subscriber=person).count() == 1
