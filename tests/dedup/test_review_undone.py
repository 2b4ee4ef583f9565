from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from dedup import desk, marks, queue, review
from dedup.models import Flag, Review
from support import asking, merging
from support.models import Merge, Question
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory

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


def fresh(flag):
    return Flag.objects.get(pk=flag.pk)


def standing(flag):
    return list(flag.reviews.standing().filter(verdict__in=Review.DECISIONS))


def test_an_undo_takes_the_merge_back_and_opens_the_flag_without_a_trace(flag, admin):
    said = confirm(flag, admin)

    review.undo(review=said, by=admin, now=SOON)

    assert root_of(flag.newer) == flag.newer_id
    assert (fresh(flag).status, standing(flag)) == ("open", [])
    assert not marks.is_marked(flag.older, flag.newer)
    assert set(said.merge.notifications.values_list("status", flat=True)) == {"cancelled"}


def test_an_undo_does_not_open_a_flag_that_a_check_has_withdrawn_since(flag, agent):
    said = review.dismiss(flag=flag, by=agent)
    Flag.objects.update(status=Flag.Status.WITHDRAWN)

    review.undo(review=said, by=agent, now=SOON)

    assert fresh(flag).status == Flag.Status.WITHDRAWN
    assert standing(flag) == []


def test_only_who_decided_can_undo_and_only_the_newest_decision(flag, agent, admin):
    first = review.dismiss(flag=flag, by=agent)
    with pytest.raises(review.NotYours):
        review.undo(review=first, by=admin)

    review.undo(review=first, by=agent)
    with pytest.raises(review.NotYours):
        review.undo(review=first, by=agent)


def test_an_undo_of_a_confirmation_that_somebody_else_merged_needs_the_right(flag, agent, admin):
    said = confirm(flag, agent)
    desk.merge(duplicate=flag.newer, canonical=flag.older, by=admin)

    with pytest.raises(merging.NotAllowed):
        review.undo(review=Review.objects.get(pk=said.pk), by=agent)

    assert root_of(flag.newer) == flag.older_id


def test_an_unmerge_at_once_gives_back_what_was_decided_with_it(flag, admin):
    said = confirm(flag, admin)

    desk.unmerge(merge=said.merge, by=admin, now=SOON)

    said.refresh_from_db()
    assert (fresh(flag).status, said.undone_at) == ("open", SOON)


def test_an_unmerge_at_once_leaves_what_was_confirmed_before_in_the_list(flag, agent, admin):
    said = confirm(flag, agent)
    edge = desk.merge(duplicate=flag.newer, canonical=flag.older, by=admin, now=LATER)

    desk.unmerge(merge=edge, by=admin, now=LATER + timedelta(seconds=20))

    said.refresh_from_db()
    assert (said.merge, said.undone_at) == (None, None)
    assert list(Flag.objects.to_merge()) == [flag]


def test_a_later_unmerge_marks_the_pair_that_was_confirmed_though_others_were_merged(flag, admin):
    top = QuestionFactory()
    merging.merge(duplicate=flag.older, canonical=top, by=admin, now=NOW)
    said = confirm(flag, admin)

    desk.unmerge(merge=said.merge, by=admin, now=LATER)

    assert fresh(flag).status == Flag.Status.DISMISSED
    assert not Flag.objects.to_merge().exists()
    assert marks.is_marked(top, flag.newer)


def test_an_unmerge_of_a_merge_without_a_flag_still_warns(flag, admin):
    one, other = QuestionFactory.create_batch(2)
    edge = desk.merge(duplicate=other, canonical=one, by=admin, now=NOW)

    desk.unmerge(merge=edge, by=admin, now=LATER)
    desk.unmerge(merge=edge, by=admin, now=LATER + timedelta(hours=1))

    assert Merge.objects.get().undone_at == LATER
    assert marks.is_marked(one, other)


def test_a_dispute_needs_the_asker_and_a_merge(flag, admin):
    with pytest.raises(desk.NotMerged):
        desk.dispute(question=flag.newer, by=flag.newer.asked_by, reason="")
    confirm(flag, admin)

    with pytest.raises(review.NotYours):
        desk.dispute(question=flag.newer, by=flag.older.asked_by, reason="")


def test_a_dispute_opens_the_same_pair_with_the_reason(flag, admin, agent):
    confirm(flag, admin)

    disputed = desk.dispute(question=flag.newer, by=flag.newer.asked_by, reason=" Square ")

    assert (disputed, disputed.dispute, disputed.status) == (flag, "Square", "open")
    assert list(queue.queue(agent)) == [flag]


def test_a_dispute_needs_no_release_in_service_but_one_that_ever_was(admin):
    one, other = QuestionFactory.create_batch(2)
    merging.merge(duplicate=other, canonical=one, by=admin)
    with pytest.raises(desk.NotReviewable):
        desk.dispute(question=other, by=other.asked_by, reason="")

    ReleaseFactory(is_active=False)
    assert desk.dispute(question=other, by=other.asked_by, reason="").status == "open"


def test_who_confirms_a_disputed_merge_leaves_it(flag, admin):
    confirm(flag, admin)
    desk.dispute(question=flag.newer, by=flag.newer.asked_by, reason="")

    said = confirm(flag, admin)

    assert (said.merge, root_of(flag.newer)) == (None, flag.older_id)


def test_who_may_not_unmerge_leaves_a_rejected_merge_to_others(flag, admin, agent, client):
    edge = confirm(flag, admin).merge
    desk.dispute(question=flag.newer, by=flag.newer.asked_by, reason="")

    review.dismiss(flag=flag, by=agent)
    assert root_of(flag.newer) == flag.older_id
    assert list(Flag.objects.to_unmerge()) == [flag]
    client.force_login(admin)
    assert reverse("unmerge", args=[edge.pk]) in client.get(reverse("to_merge")).text

    desk.unmerge(merge=edge, by=admin, now=LATER)
    assert not Flag.objects.to_unmerge().exists()
    assert fresh(flag).status == Flag.Status.DISMISSED


def test_an_undo_of_a_rejected_merge_puts_the_merge_back(flag, admin):
    edge = confirm(flag, admin).merge
    desk.dispute(question=flag.newer, by=flag.newer.asked_by, reason="")
    said = review.dismiss(flag=flag, by=admin)
    assert root_of(flag.newer) == flag.newer_id

    review.undo(review=said, by=admin)

    assert root_of(flag.newer) == flag.older_id
    assert Merge.objects.get() == edge
    assert (fresh(flag).status, marks.disputed_edge(fresh(flag))) == ("open", edge)


def test_a_card_warns_of_a_mark_between_its_threads(flag, agent, admin, client):
    third = QuestionFactory()
    marked = FlagFactory(older=flag.older, newer=third, release=flag.release)
    review.dismiss(flag=marked, by=agent)
    client.force_login(agent)
    page = reverse("review_card", args=[flag.pk])
    assert "not duplicates" not in client.get(page).text

    merging.merge(duplicate=third, canonical=flag.newer, by=admin)

    assert "not duplicates" in client.get(page).text


def test_a_card_decided_on_a_text_that_was_edited_meanwhile_is_a_conflict(flag, agent, client):
    client.force_login(agent)
    asking.edit_question(
        question=flag.newer, title="Said otherwise", body="", audience="public",
        by=flag.newer.asked_by, seen=1,
    )  # fmt: skip

    for verdict in ("confirmed", "dismissed"):
        said = {"verdict": verdict, "canonical": flag.older_id, f"version-{flag.newer_id}": 1}
        answer = client.post(reverse("review_decide", args=[flag.pk]), said)
        assert (answer.status_code, fresh(flag).status) == (409, "open")
