"""The merge desk: many merges at once, one sent back, a link where a merge cannot be."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from dedup import desk, feedback, marks, queue, review
from dedup.models import Flag, Review
from support import merging
from support.models import Merge, Question
from tests.factories import AnswerFactory, FlagFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def waiting(agent):
    """Three pairs that an agent confirmed."""
    release = ReleaseFactory(is_active=True)
    flags = FlagFactory.create_batch(3, release=release)
    for flag in flags:
        review.confirm(flag=flag, canonical=flag.older, by=agent)
    return flags


def ids(flags):
    return [flag.pk for flag in flags]


def test_many_that_wait_are_merged_together_and_taken_back_together(waiting, admin):
    edges = desk.merge_many(flag_ids=ids(waiting), by=admin)

    assert {edge.duplicate for edge in edges} == {flag.newer for flag in waiting}
    assert not Flag.objects.to_merge().exists()
    assert set(Review.objects.values_list("merge", flat=True)) == {edge.pk for edge in edges}

    desk.unmerge_many(merges=edges, by=admin)
    assert not Merge.objects.in_force().exists()
    assert set(Flag.objects.to_merge()) == set(waiting)


def test_where_one_does_not_wait_any_more_none_is_merged(waiting, admin):
    review.send_back(flag=waiting[1], by=admin, note="Another lamp.")

    with pytest.raises(review.NotWaiting):
        desk.merge_many(flag_ids=ids(waiting), by=admin)
    assert not Merge.objects.exists()


def test_what_was_edited_since_the_preview_is_not_merged(waiting, admin):
    seen = {waiting[0].older_id: waiting[0].older.version}
    Question.objects.filter(pk=waiting[0].older_id).update(version=7)

    with pytest.raises(merging.Stale):
        desk.merge_many(flag_ids=ids(waiting), by=admin, seen=seen)
    assert not Merge.objects.exists()


def test_pairs_in_a_ring_are_merged_once_each(agent, admin):
    one, two, three = QuestionFactory.create_batch(3)
    release = ReleaseFactory()
    flags = [
        FlagFactory(older=older, newer=newer, release=release)
        for older, newer in [(one, two), (two, three), (one, three)]
    ]
    for flag in flags:
        review.confirm(flag=flag, canonical=flag.older, by=agent)

    assert len(desk.merge_many(flag_ids=ids(flags), by=admin)) == 2
    assert merging.broken_pointers() == []
    assert set(Question.objects.filter(canonical=one)) == {two, three}


def test_the_list_costs_no_more_for_many_than_for_few(
    client, admin, agent, waiting, django_assert_max_num_queries
):
    client.force_login(admin)
    for flag in FlagFactory.create_batch(15, release=waiting[0].release):
        review.confirm(flag=flag, canonical=flag.older, by=agent)

    with django_assert_max_num_queries(25):
        client.get(reverse("to_merge"))


def test_a_pair_that_is_sent_back_is_asked_again_of_others_with_the_word(waiting, admin, agent):
    flag = waiting[0]
    review.send_back(flag=flag, by=admin, note="  Another lamp. ")

    flag.refresh_from_db()
    assert (flag.status, flag.unsure, flag.unsure_by) == ("open", "Another lamp.", admin)
    assert flag in queue.queue(agent)
    assert flag not in queue.queue(admin)
    assert flag not in Flag.objects.to_merge()
    assert len(feedback.labels()) == 2


def test_only_who_may_merge_sends_back_and_only_what_waits(waiting, admin, agent):
    with pytest.raises(merging.NotAllowed):
        review.send_back(flag=waiting[0], by=agent, note="No.")
    desk.merge_many(flag_ids=[waiting[0].pk], by=admin)

    with pytest.raises(review.NotWaiting):
        review.send_back(flag=waiting[0], by=admin, note="No.")


def test_two_with_other_readers_are_linked_for_agents_and_not_merged(agent):
    ReleaseFactory(is_active=True)
    secret, public = QuestionFactory(audience="private"), QuestionFactory()

    said = desk.link(one=secret, other=public, by=agent)

    assert said.verdict == "confirmed"
    assert desk.linked(secret) == [public]
    assert desk.linked(public) == [secret]
    assert not Merge.objects.exists()
    assert desk.link(one=public, other=secret, by=agent) is None


def test_what_was_said_to_be_different_can_be_linked_after_all(agent):
    flag = FlagFactory(older=QuestionFactory(audience="private"))
    review.dismiss(flag=flag, by=agent)

    desk.link(one=flag.older, other=flag.newer, by=agent)

    flag.refresh_from_db()
    assert flag.status == "confirmed"


def test_two_with_the_same_readers_are_not_linked(agent):
    ReleaseFactory()
    with pytest.raises(desk.NotLinked):
        desk.link(one=QuestionFactory(), other=QuestionFactory(), by=agent)


def test_a_pair_that_was_sampled_and_sent_back_stands_in_the_queue(admin, agent):
    flag = FlagFactory(lane=Flag.Lane.SAMPLED, asked_share=0.02)
    review.confirm(flag=flag, canonical=flag.older, by=agent)
    review.send_back(flag=flag, by=admin, note="Another lamp.")

    assert list(queue.queue(agent)) == [flag]


def test_what_an_agent_chose_to_stay_is_proposed_to_stay(admin, agent):
    flag = FlagFactory()
    review.confirm(flag=flag, canonical=flag.newer, by=agent)

    assert desk.proposals([flag]) == [(flag, flag.older, flag.newer)]


def test_a_later_unmerge_is_a_verdict_that_can_be_taken_back_with_it(admin):
    flag = FlagFactory()
    long_ago = timezone.now() - timedelta(hours=1)
    edge = review.confirm(flag=flag, canonical=flag.older, by=admin, now=long_ago).merge
    desk.unmerge(merge=edge, by=admin)
    said = flag.reviews.get(verdict="dismissed")

    review.undo(review=said, by=admin)

    edge.refresh_from_db()
    assert edge.is_in_force


def test_an_undo_leaves_no_mark_however_late(admin):
    flag = FlagFactory()
    long_ago = timezone.now() - timedelta(hours=1)
    said = review.confirm(flag=flag, canonical=flag.older, by=admin, now=long_ago)

    review.undo(review=said, by=admin)

    assert not marks.is_marked(flag.older, flag.newer)


def test_an_undone_link_that_nobody_had_asked_for_is_asked_of_nobody(agent):
    ReleaseFactory(is_active=True)
    secret, public = QuestionFactory(audience="private"), QuestionFactory()
    said = desk.link(one=secret, other=public, by=agent)

    review.undo(review=said, by=agent)

    assert Flag.objects.get().status == Flag.Status.WITHDRAWN
    assert not queue.queue(agent).exists()


class TestOnThePage:
    def post(self, client, route, *args, **given):
        return client.post(reverse(route, args=args), given, follow=True)

    def test_many_are_shown_first_merged_then_and_taken_back_from_the_message(
        self, client, admin, waiting
    ):
        AnswerFactory(question=waiting[0].newer)
        client.force_login(admin)
        preview = self.post(client, "merge_many", flag=ids(waiting[:2]))
        assert "Merge 2 pairs" in preview.content.decode()
        assert "1 answer in one thread" in preview.content.decode()
        assert not Merge.objects.exists()

        versions = {f"version-{k}": v for k, v in preview.context["versions"].items()}
        shown = {f"closes-{flag.pk}": flag.newer_id for flag in waiting[:2]}
        shown |= {f"stays-{flag.pk}": flag.older_id for flag in waiting[:2]}
        done = self.post(
            client, "merge_many", flag=ids(waiting[:2]), apply="1", **versions, **shown
        )
        assert "2 merged." in done.content.decode()
        assert reverse("unmerge_many") in done.content.decode()
        assert Merge.objects.in_force().count() == 2

        self.post(client, "unmerge_many")
        assert Merge.objects.in_force().count() == 0

    def test_a_lost_race_leaves_what_still_waits(self, client, admin, waiting):
        client.force_login(admin)
        desk.merge_many(flag_ids=[waiting[0].pk], by=admin)
        answer = client.post(reverse("merge_many"), {"flag": ids(waiting), "apply": "1"})

        assert answer.status_code == 409
        assert [flag for flag, *_ in answer.context["previews"]] == waiting[1:]

    def test_what_would_be_merged_otherwise_than_shown_is_not(self, client, admin, waiting):
        flag = waiting[0]
        client.force_login(admin)
        AnswerFactory(question=flag.newer)  # ... after the preview: now the newer would stay
        shown = {f"closes-{flag.pk}": flag.newer_id, f"stays-{flag.pk}": flag.older_id}
        versions = {f"version-{pk}": 1 for pk in flag.question_ids}
        Review.objects.update(canonical=None)
        given = {"flag": flag.pk, "apply": "1"} | shown | versions

        assert client.post(reverse("merge_many"), given).status_code == 409
        assert not Merge.objects.exists()

    def test_a_word_goes_back_with_the_pair(self, client, admin, waiting):
        client.force_login(admin)
        said = self.post(client, "send_back", waiting[0].pk, note="Another lamp.")
        assert "Sent back" in said.content.decode()

        card = client.get(reverse("review_card", args=[waiting[0].pk])).content.decode()
        assert "Another lamp." in card

    def test_a_merge_that_cannot_be_offers_a_link_instead(self, client, admin):
        ReleaseFactory(is_active=True)
        secret, public = QuestionFactory(audience="private"), QuestionFactory()
        client.force_login(admin)
        page = client.get(reverse("merge", args=[secret.pk, public.pk])).content.decode()
        assert reverse("link", args=[secret.pk, public.pk]) in page

        shown = self.post(client, "link", secret.pk, public.pk).content.decode()
        assert secret.title in shown

    def test_the_second_decision_can_overrule_the_first_from_its_card(self, client, agent, admin):
        flag = FlagFactory()
        said = review.dismiss(flag=flag, by=agent)
        client.force_login(admin)
        late = client.post(reverse("review_decide", args=[flag.pk]), {"verdict": "related"})
        assert late.status_code == 409
        assert reverse("review_overrule", args=[said.pk]) in late.content.decode()

        self.post(
            client, "review_overrule", said.pk, verdict="confirmed", canonical=flag.older_id,
            **{f"version-{q.pk}": q.version for q in (flag.older, flag.newer)},
        )  # fmt: skip
        flag.refresh_from_db()
        assert (flag.status, Merge.objects.get().canonical) == ("confirmed", flag.older)

    @pytest.mark.parametrize("name", ["version-007", "version-", "closes-x", "stays-0"])
    def test_an_odd_name_in_a_form_is_passed_over(self, client, admin, waiting, name):
        client.force_login(admin)
        given = {"flag": waiting[0].pk, "apply": "1", name: "1"}

        assert client.post(reverse("merge_many"), given).status_code == 409

    @pytest.mark.parametrize(
        "form", ["{}", "#{}", " /questions/{}/?duplicate=4", "http://a/questions/{}/"]
    )
    def test_a_question_is_merged_with_any_other_by_its_number_or_address(
        self, client, admin, form
    ):
        older, newer = QuestionFactory(), QuestionFactory()
        client.force_login(admin)
        answer = client.get(
            reverse("merge_other", args=[older.pk]), {"other": form.format(newer.pk)}
        )

        assert answer.url == reverse("merge", args=[newer.pk, older.pk])

    @pytest.mark.parametrize("other", ["", "none", "0", "9" * 30, "itself"])
    def test_what_is_no_other_question_is_said(self, client, admin, other):
        one = QuestionFactory()
        client.force_login(admin)
        given = {"other": str(one.pk) if other == "itself" else other}
        shown = client.get(reverse("merge_other", args=[one.pk]), given, follow=True)

        assert "Give the number or the address" in shown.content.decode()
