"""The fifteen rules of merging, each with what breaks when it does. Details are in the tests of
`support.merging`, `thread`, `notifications`, `dedup.review` and `flagging`."""

from datetime import timedelta

import pytest
from django.apps import apps
from django.utils import timezone

from dedup import desk, marks, queue, review, suggesting
from dedup.models import Flag, Review
from support import answering, asking, merging, notifications, thread
from support.models import Merge, Notification, Question
from tests.factories import (
    AnswerFactory,
    FlagFactory,
    QuestionFactory,
    ReleaseFactory,
    SubscriptionFactory,
    UserFactory,
    VoteFactory,
)

pytestmark = pytest.mark.django_db

LATER = timedelta(hours=1)


@pytest.fixture
def pair():
    older, newer = QuestionFactory(), QuestionFactory()
    return newer, older


def merged(pair, by, **given):
    duplicate, canonical = pair
    return merging.merge(duplicate=duplicate, canonical=canonical, by=by, **given)


def root_of(question):
    return Question.objects.get(pk=question.pk).root_id


def test_rule_1_an_answered_question_stays_or_else_the_older_and_the_agent_can_swap(pair, admin):
    newer, older = pair
    assert merging.choose_direction(older, newer) == (newer, older)
    AnswerFactory(question=newer)
    assert merging.choose_direction(older, newer) == (older, newer)
    AnswerFactory(question=older)
    assert merging.choose_direction(older, newer) == (newer, older)

    flag = FlagFactory(older=older, newer=newer)
    review.confirm(flag=flag, canonical=newer, by=admin)

    assert root_of(older) == newer.pk


def test_rule_2_a_merge_looks_again_at_what_the_person_saw(pair, admin):
    newer, older = pair
    asking.edit_question(
        question=newer, title="Another", body="", audience="public", by=newer.asked_by, seen=1
    )

    with pytest.raises(merging.Stale) as refused:
        merged(pair, admin, seen={newer.pk: 1, older.pk: 1})

    assert refused.value.details["changed"] == [newer.pk]
    assert not Merge.objects.exists()


def test_rule_3_the_old_address_leads_to_the_canonical(pair, admin, client):
    newer, older = pair
    merged(pair, admin)

    response = client.get(newer.get_absolute_url())

    there = f"{older.get_absolute_url()}?duplicate={newer.pk}"
    assert (response.status_code, response["Location"]) == (302, there)


def test_rule_3_the_old_title_finds_the_thread_in_search(pair, admin):
    newer, older = pair
    Question.objects.filter(pk=newer.pk).update(title="Flickering chandelier")
    merged(pair, admin)

    found = suggesting.similar(title="flickering chandelier", reader=admin).questions

    assert [question.pk for question in found] == [older.pk]


def test_rule_3_programs_see_the_duplicate_with_its_canonical(pair, admin, client):
    newer, older = pair
    client.force_login(newer.asked_by)
    edge = merged(pair, admin)

    def seen():
        return client.get(f"/api/v1/questions/{newer.pk}/").json()["canonical"]

    assert seen().endswith(f"/api/v1/questions/{older.pk}/")
    merging.unmerge(merge=edge, by=admin)
    assert seen() is None


def test_rule_4_votes_and_followers_are_sets_of_people(pair, admin):
    newer, older = pair
    person = UserFactory()
    for question in pair:
        VoteFactory(question=question, by=person)
        SubscriptionFactory(question=question, subscriber=person)
    VoteFactory(question=newer)

    merged(pair, admin)

    read = thread.read(older, person)
    assert (read.votes, read.followers) == (2, 1)


def test_rule_4_who_follows_a_duplicate_follows_its_thread(pair, admin, client):
    follower = SubscriptionFactory(question=pair[0]).subscriber
    merged(pair, admin)
    client.force_login(follower)

    assert list(client.get("/mine/").context["followed"]) == [pair[1]]


def test_rule_5_each_asker_accepts_and_the_canonicals_solution_stands_first(pair, admin):
    newer, older = pair
    first, second, third = (AnswerFactory(question=q) for q in (older, newer, older))
    answering.accept_answer(question=newer, answer=second, by=newer.asked_by)
    answering.accept_answer(question=older, answer=third, by=older.asked_by)

    merged(pair, admin)

    shown = [(a.answer, a.is_solution, a.accepted_by) for a in thread.read(older, admin).answers]
    assert shown == [
        (third, True, [older.asked_by]),
        (first, False, []),
        (second, False, [newer.asked_by]),
    ]


def test_rule_6_a_reply_to_a_duplicate_goes_to_its_canonical_and_stays_there(pair, admin):
    newer, older = pair
    edge = merged(pair, admin)

    written = answering.post_answer(question=newer, body="Like this.", by=UserFactory())
    merging.unmerge(merge=edge, by=admin)

    assert [a.answer for a in thread.read(older, admin).answers] == [written]
    assert thread.read(newer, admin).answers == []


@pytest.mark.parametrize("audiences", [("public", "private"), ("private", "private")])
def test_rule_7_questions_of_different_readers_are_linked_for_agents_and_not_merged(
    audiences, admin
):
    one, other = (QuestionFactory(audience=audience) for audience in audiences)
    with pytest.raises(merging.AudienceDiffers):
        merged((other, one), admin)

    review.confirm(flag=FlagFactory(older=one, newer=other), canonical=one, by=admin)

    assert not Merge.objects.exists()
    assert desk.linked(one) == [other]
    assert desk.linked(other) == [one]
    assert not Flag.objects.to_merge().exists()


@pytest.mark.parametrize("which", [0, 1])
def test_rule_7_the_audience_of_a_merged_question_cannot_change(which, pair, admin):
    merged(pair, admin)
    question = pair[which]

    with pytest.raises(asking.AudienceFixed):
        asking.edit_question(
            question=question, title="T", body="", audience="private",
            by=question.asked_by, seen=1,
        )  # fmt: skip


def test_rule_8_agents_confirm_and_admins_merge(pair, agent, admin):
    newer, older = pair
    flag = FlagFactory(older=older, newer=newer, probability=0.93)

    said = review.confirm(flag=flag, canonical=older, by=agent)
    assert said.merge is None
    assert list(Flag.objects.to_merge()) == [flag]

    edge = desk.merge(duplicate=newer, canonical=older, by=admin)
    said.refresh_from_db()
    assert (said.merge, edge.probability) == (edge, 0.93)
    assert not Flag.objects.to_merge().exists()


def test_rule_9_each_person_gets_one_mail_for_a_merge_and_none_where_it_was_undone(pair, admin):
    newer, older = pair
    follower = SubscriptionFactory(question=newer).subscriber
    SubscriptionFactory(question=newer, subscriber=newer.asked_by)
    now = timezone.now()

    edge = merged(pair, admin, now=now)

    told = Notification.objects.values_list("recipient", "due_at", "status")
    due = now + timedelta(seconds=30)
    people = sorted([newer.asked_by_id, older.asked_by_id, follower.pk])
    assert sorted(told) == [(pk, due, "waiting") for pk in people]
    merging.unmerge(merge=edge, by=admin)
    assert notifications.send_due(now=due) == 0
    assert set(Notification.objects.values_list("status", flat=True)) == {"cancelled"}


def test_rule_10_the_queue_shows_one_card_for_two_live_threads(pair, agent, admin):
    newer, older = pair
    newest = QuestionFactory()
    FlagFactory(older=older, newer=newest, probability=0.85)
    likelier = FlagFactory(older=newer, newer=newest, probability=0.95)

    merged(pair, admin)

    assert list(queue.queue(agent)) == [likelier]


def test_rule_10_a_merge_across_a_mark_warns(pair, agent):
    newer, older = pair
    assert not marks.is_marked(older, newer)

    review.dismiss(flag=FlagFactory(older=older, newer=newer), by=agent)

    assert marks.is_marked(older, newer)


def test_rule_11_an_undo_leaves_no_mark_and_a_later_unmerge_does(pair, admin):
    newer, older = pair
    now = timezone.now()
    flag = FlagFactory(older=older, newer=newer)
    said = review.confirm(flag=flag, canonical=older, by=admin, now=now)
    review.undo(review=said, by=admin, now=now + timedelta(seconds=20))
    flag.refresh_from_db()
    assert (flag.status, list(flag.reviews.standing()), root_of(newer)) == ("open", [], newer.pk)

    said = review.confirm(flag=flag, canonical=older, by=admin, now=now)
    desk.unmerge(merge=said.merge, by=admin, now=now + LATER)
    flag.refresh_from_db()
    assert flag.status == Flag.Status.DISMISSED


def test_rule_12_repeating_a_merge_or_an_unmerge_is_harmless(pair, admin):
    edge = merged(pair, admin)
    assert merged(pair, admin) == edge

    first = merging.unmerge(merge=edge, by=admin, now=timezone.now())
    again = merging.unmerge(merge=edge, by=admin, now=timezone.now() + LATER)

    assert (again.undone_at, Merge.objects.count()) == (first.undone_at, 1)


def test_rule_13_both_histories_say_who_when_why_and_with_what_evidence(pair, admin):
    flag = FlagFactory(older=pair[1], newer=pair[0], probability=0.9)
    now = timezone.now()

    desk.merge(duplicate=pair[0], canonical=pair[1], by=admin, reason="Same lamp", now=now)

    for question in pair:
        event = thread.history(question)[0]
        assert (event.action, event.by, event.at, event.why) == ("merged", admin, now, "Same lamp")
        assert event.details["probability"] == 0.9
        assert event.details["release"] == flag.release.name


def test_rule_14_mine_is_different_becomes_a_mark_when_an_agent_agrees(pair, admin, agent):
    newer, older = pair
    ReleaseFactory(is_active=True)
    merged(pair, admin)

    flag = desk.dispute(question=newer, by=newer.asked_by, reason="Mine is square")
    assert list(queue.queue(agent)) == [flag]
    said = review.dismiss(flag=flag, by=admin)

    assert said.verdict == Review.Verdict.DISMISSED
    assert root_of(newer) == newer.pk
    assert marks.is_marked(newer, older)


def test_rule_15_every_relation_to_a_question_has_a_merge_rule_and_none_cascades():
    relations = {
        f"{model._meta.label}.{field.name}": field.remote_field
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.get_fields(include_hidden=True)
        if getattr(field, "remote_field", None) and field.related_model is Question
        and (field.concrete or field.many_to_many)
    }  # fmt: skip

    assert set(relations) == set(merging.MERGE_RULES)
    assert set(merging.MERGE_RULES.values()) <= {"stays", "union", "computed", "carried"}
    for name, relation in relations.items():
        assert relation.on_delete.__name__ == "PROTECT", name
