"""Many pairs decided in one go."""

import pytest
from django.urls import reverse

from dedup import bulk, review
from dedup.models import Flag, Review
from support import merging
from support.models import Merge
from tests.factories import FlagFactory, QuestionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def flags():
    return [FlagFactory(probability=p) for p in (0.9, 0.8, 0.7)]


def ids(flags):
    return [flag.pk for flag in flags]


def test_all_are_decided_together_and_taken_back_together(flags, admin):
    said = bulk.apply(flag_ids=ids(flags), verdict="confirmed", by=admin)

    assert Merge.objects.in_force().count() == 3
    assert len({one.batch for one in said}) == 1
    review.undo(review=said[1], by=admin)
    assert not Merge.objects.in_force().exists()
    assert Flag.objects.open().count() == 3
    assert not Review.objects.standing().exists()


@pytest.mark.django_db(transaction=True)
def test_where_one_was_decided_meanwhile_none_is_decided(flags, agent, admin):
    review.dismiss(flag=flags[2], by=admin)

    with pytest.raises(review.FlagClosed):
        bulk.apply(flag_ids=ids(flags), verdict="dismissed", by=agent)
    assert Review.objects.filter(by=agent).count() == 0
    assert Flag.objects.open().count() == 2


def test_what_was_edited_since_the_preview_is_refused(flags, agent):
    seen = bulk.preview(flag_ids=ids(flags), verdict="dismissed", by=agent).versions
    edited = flags[0].newer
    edited.version += 1
    edited.save()

    with pytest.raises(merging.Stale):
        bulk.apply(flag_ids=ids(flags), verdict="dismissed", by=agent, seen=seen)
    assert Flag.objects.open().count() == 3


def test_the_preview_says_what_would_become_of_each(agent, admin):
    same = FlagFactory(probability=0.9)
    private = FlagFactory(probability=0.8, newer=QuestionFactory(audience="private"))
    closed = FlagFactory(probability=0.7)
    review.dismiss(flag=closed, by=admin)
    chosen = ids([same, private, closed])

    def effects(verdict, by):
        preview = bulk.preview(flag_ids=chosen, verdict=verdict, by=by)
        return [row.effect for row in preview.rows]

    assert effects("confirmed", admin) == ["merged", "linked", "closed"]
    assert effects("confirmed", agent) == ["to_merge", "linked", "closed"]
    assert effects("related", agent) == ["remembered", "remembered", "closed"]
    assert effects("skipped", agent) == ["skipped", "skipped", "closed"]


def test_pairs_that_share_a_question_are_merged_one_after_the_other(admin):
    canonical = QuestionFactory()
    flags = [FlagFactory(older=canonical, newer=QuestionFactory()) for _ in range(3)]
    said = bulk.apply(flag_ids=ids(flags), verdict="confirmed", by=admin)

    assert {flag.newer.root_id for flag in Flag.objects.filter(pk__in=ids(flags))} == {canonical.pk}
    review.undo(review=said[0], by=admin)
    assert merging.broken_pointers() == []
    assert not Merge.objects.in_force().exists()


def test_the_page_shows_first_and_acts_then(client, agent, flags):
    client.force_login(agent)
    given = {"flag": ids(flags[:2]), "verdict": "dismissed"}
    shown = client.post(reverse("review_many"), given)
    assert [row.effect for row in shown.context["preview"].rows] == ["remembered"] * 2
    assert Flag.objects.open().count() == 3

    done = client.post(reverse("review_many"), given | {"apply": "1", "band": "likely"})
    assert done.url == f"{reverse('review_queue')}?band=likely"
    assert list(Flag.objects.open()) == [flags[2]]


def test_nothing_chosen_and_no_verdict_are_refused_kindly(client, agent, flags):
    client.force_login(agent)
    for given in ({"verdict": "dismissed"}, {"flag": ids(flags), "verdict": "unsure"}):
        assert client.post(reverse("review_many"), given).status_code == 302
    assert Review.objects.count() == 0


def test_a_lost_race_leaves_the_page_with_what_stands_there_now(client, agent, admin, flags):
    client.force_login(agent)
    review.dismiss(flag=flags[0], by=admin)
    given = {"flag": ids(flags), "verdict": "dismissed", "apply": "1"}

    refused = client.post(reverse("review_many"), given)
    assert refused.status_code == 409
    assert "Nothing has been stored" in refused.content.decode()
    assert Flag.objects.open().count() == 2
