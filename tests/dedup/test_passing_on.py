"""Related, later, a second opinion, another decision: and the way back from each."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from dedup import bulk, desk, feedback, marks, precedent, queue, review
from dedup.models import Flag, Review, SavedView
from support import merging
from support.models import Merge
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db

NOW = timezone.now()


@pytest.fixture
def flag():
    return FlagFactory()


def test_related_questions_are_shown_beside_each_other_and_count_as_not_the_same(flag, agent):
    review.dismiss(flag=flag, by=agent, is_related=True)

    flag.refresh_from_db()
    assert flag.status == Flag.Status.RELATED
    assert desk.linked(flag.older) == [flag.newer]
    assert desk.linked(flag.newer) == [flag.older]
    assert marks.is_marked(flag.older, flag.newer)


def test_what_was_related_is_a_negative_label(agent):
    flag = FlagFactory()
    review.dismiss(flag=flag, by=agent, is_related=True)

    assert [one.label for one in feedback.labels()] == [0.0]


def test_a_disputed_merge_that_is_only_related_is_taken_back(flag, admin):
    merging.merge(duplicate=flag.newer, canonical=flag.older, by=admin)
    disputed = desk.dispute(question=flag.newer, by=flag.newer.asked_by, reason="Mine differs.")
    review.dismiss(flag=disputed, by=admin, is_related=True)

    assert not Merge.objects.in_force().exists()


@pytest.mark.parametrize(
    "passed_on",
    [
        lambda flag, by: review.skip(flag=flag, by=by, now=NOW),
        lambda flag, by: review.ask_second_opinion(flag=flag, by=by, note="?", now=NOW),
        lambda flag, by: review.snooze(
            flag=flag, by=by, until=NOW + timedelta(days=1), more=3, now=NOW
        ),
    ],
    ids=["skipped", "second opinion", "snoozed"],
)
def test_what_was_passed_on_can_be_fetched_back(flag, agent, passed_on):
    said = passed_on(flag, agent)
    assert queue.claim_next(agent, now=NOW) == []

    review.undo(review=said, by=agent)
    assert queue.claim_next(agent, now=NOW) == [flag]
    flag.refresh_from_db()
    assert (flag.unsure, flag.snoozed_until, flag.snoozed_left) == ("", None, None)


def test_a_decision_can_be_taken_back_although_somebody_skipped_the_pair_before(flag, agent, admin):
    review.skip(flag=flag, by=admin)
    said = review.dismiss(flag=flag, by=agent)

    assert review.undo(review=said, by=agent).status == Flag.Status.OPEN


@pytest.mark.parametrize(
    ("verdict", "merges"), [("confirmed", 1), ("dismissed", 0), ("related", 0)]
)
def test_a_decision_is_changed_in_one_go(flag, admin, verdict, merges):
    first = review.confirm(flag=flag, canonical=flag.older, by=admin)
    changed = review.overrule(review=first, verdict=verdict, by=admin)

    flag.refresh_from_db()
    assert (flag.status, changed.verdict) == (verdict, verdict)
    assert list(Review.objects.standing()) == [changed]
    assert Merge.objects.in_force().count() == merges


def test_somebody_elses_decision_is_overruled_and_stays_in_the_history(flag, agent, admin):
    said = review.dismiss(flag=flag, by=admin)

    mine = review.overrule(review=said, verdict="related", by=agent)

    flag.refresh_from_db()
    assert flag.status == "related"
    assert list(flag.reviews.standing()) == [mine]
    assert set(flag.reviews.all()) == {said, mine}


def test_what_was_overruled_once_is_not_overruled_by_a_page_that_shows_the_old(flag, agent, admin):
    said = review.dismiss(flag=flag, by=admin)
    review.overrule(review=said, verdict="related", by=agent)

    with pytest.raises(review.FlagClosed):
        review.overrule(review=said, verdict="confirmed", by=admin)


def test_who_may_not_unmerge_cannot_overrule_what_was_merged(flag, agent, admin):
    said = review.confirm(flag=flag, canonical=flag.older, by=admin)

    with pytest.raises(merging.NotAllowed):
        review.overrule(review=said, verdict="dismissed", by=agent)

    assert list(flag.reviews.standing()) == [said]
    assert Merge.objects.in_force().count() == 1


def test_one_of_many_decided_together_is_overruled_alone(agent):
    flags = [FlagFactory(), FlagFactory()]
    said = bulk.apply(flag_ids=[f.pk for f in flags], verdict="dismissed", by=agent)

    mine = review.overrule(review=said[0], verdict="related", by=agent)

    assert set(Review.objects.standing()) == {said[1], mine}


def test_the_card_says_what_became_of_others_like_it(agent):
    release = ReleaseFactory()
    for i in range(12):
        pair = FlagFactory(release=release, probability=0.6)
        if i < 9:
            review.confirm(flag=pair, canonical=pair.older, by=agent)
        else:
            review.dismiss(flag=pair, by=agent)
    FlagFactory(release=release, probability=0.2)

    like_it = precedent.like_it(FlagFactory(release=release, probability=0.62))
    assert (like_it.confirmed, like_it.decided) == (9, 12)
    assert precedent.like_it(FlagFactory(release=release, probability=0.2)) is None


def test_nothing_is_said_of_languages_that_the_release_does_not_know(agent):
    release = ReleaseFactory()
    for _ in range(12):
        review.dismiss(flag=FlagFactory(release=release, probability=0.6), by=agent)
    foreign = FlagFactory(release=release, probability=0.6, newer=QuestionFactory(language="de"))

    assert precedent.like_it(foreign) is None


class TestOnThePage:
    def decide(self, client, flag, **given):
        return client.post(reverse("review_decide", args=[flag.pk]), given)

    def test_each_verdict_has_its_effect(self, client, agent):
        client.force_login(agent)
        for verdict in ("related", "skipped", "snoozed", "unsure"):
            flag = FlagFactory()
            answer = self.decide(client, flag, verdict=verdict, note="Which?", snooze="week")
            assert answer.status_code == 302
            assert flag.reviews.get().verdict == verdict

    def test_the_filter_stays_while_somebody_decides(self, client, agent, flag):
        client.force_login(agent)
        answer = self.decide(client, flag, verdict="dismissed", band="likely", product="lamp")

        assert answer.url == f"{reverse('review_next')}?product=lamp&band=likely"

    def test_a_script_gets_the_way_back_and_the_cards_to_come(self, client, agent):
        flags = [FlagFactory(probability=p) for p in (0.95, 0.94, 0.93, 0.92)]
        client.force_login(agent)
        answer = client.post(
            reverse("review_decide", args=[flags[0].pk]),
            {"verdict": "dismissed", "held": [flags[1].pk]},
            headers={"X-Desk": "1"},
        )

        shown = answer.content.decode()
        assert reverse("review_undo", args=[Review.objects.get().pk]) in shown
        assert shown.count("<template data-ahead-card>") == 2
        assert f'data-card="{flags[2].pk}"' in shown
        assert f'data-card="{flags[3].pk}"' in shown

    def test_a_script_that_was_too_late_gets_the_card_with_who_was_first(
        self, client, agent, admin, flag
    ):
        review.dismiss(flag=flag, by=admin)
        client.force_login(agent)
        answer = client.post(
            reverse("review_decide", args=[flag.pk]), {"verdict": "related"},
            headers={"X-Desk": "1"},
        )  # fmt: skip

        assert answer.status_code == 409
        assert "<html" not in answer.content.decode()
        assert "Somebody was faster" in answer.content.decode()

    def test_a_view_is_kept_shared_and_forgotten(self, client, agent, admin):
        client.force_login(agent)
        kept = {"name": "Likely lamps", "band": "likely", "is_shared": "on"}
        client.post(reverse("review_view_save"), kept)
        client.post(reverse("review_view_save"), {"name": "My own", "who": "mine"})

        client.force_login(admin)
        shown = client.get(reverse("review_queue")).context["views"]
        assert [(view.name, view.query) for view in shown] == [("Likely lamps", "band=likely")]
        assert client.post(reverse("review_view_drop", args=[shown[0].pk])).status_code == 404

        client.force_login(agent)
        client.post(reverse("review_view_drop", args=[shown[0].pk]))
        assert [view.name for view in SavedView.objects.all()] == ["My own"]

    def test_a_decision_is_changed_from_the_list_of_the_last_ten(self, client, agent, flag):
        said = review.dismiss(flag=flag, by=agent)
        client.force_login(agent)
        client.post(reverse("review_overrule", args=[said.pk]), {"verdict": "related"})

        assert Review.objects.standing().get().verdict == "related"
