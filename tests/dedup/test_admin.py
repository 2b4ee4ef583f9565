import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from dedup import marks, promoting, releases, review
from dedup.ml.artifact import ArtifactRefused
from dedup.models import Flag, Release, Review
from support import merging
from support.models import Merge, Question
from tests.factories import AnswerFactory, FlagFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db
MERGES = reverse("admin:support_merge_changelist")
FLAGS, RELEASES = (reverse(f"admin:dedup_{name}_changelist") for name in ("flag", "release"))


def act(client, address, action, *rows):
    chosen = {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(address, chosen, follow=True)


@pytest.fixture
def client(client, admin):
    client.force_login(admin)
    return client


def test_the_queue_lists_its_pairs_and_leads_to_their_cards(client):
    flag = FlagFactory()

    page = client.get(FLAGS).content.decode()

    assert flag.older.title in page
    assert reverse("review_card", args=[flag.pk]) in page


@pytest.mark.parametrize("name", ["status", "older__product", "release"])
def test_the_queue_can_be_narrowed(client, name):
    one, other = FlagFactory(older__product__slug="a"), FlagFactory(older__product__slug="b")
    Flag.objects.filter(pk=other.pk).update(status=Flag.Status.DISMISSED)
    query = {
        "status": "status__exact=open",
        "older__product": f"older__product__id__exact={one.older.product_id}",
        "release": f"release__id__exact={one.release_id}",
    }[name]

    page = client.get(f"{FLAGS}?{query}").content.decode()

    assert reverse("review_card", args=[one.pk]) in page
    assert reverse("review_card", args=[other.pk]) not in page


def test_confirming_merges_as_the_card_proposes(client, admin):
    answered = FlagFactory()
    AnswerFactory(question=answered.newer)  # an answered question beats an older one

    act(client, FLAGS, "confirm", answered)

    edge = Merge.objects.get()
    assert (edge.duplicate, edge.canonical) == (answered.older, answered.newer)
    assert (edge.merged_by, edge.probability) == (admin, answered.probability)
    assert Review.objects.get().merge == edge


def test_confirming_a_pair_of_duplicates_merges_their_threads(client, admin):
    flag = FlagFactory()
    top = QuestionFactory()
    merging.merge(duplicate=flag.newer, canonical=top, by=admin)

    act(client, FLAGS, "confirm", flag)

    roots = Question.objects.filter(pk__in=[flag.older_id, flag.newer_id, top.pk]).live()
    assert roots.count() == 1
    assert merging.broken_pointers() == []


def test_dismissing_marks_the_pair_and_merges_nothing(client, admin):
    flag = FlagFactory()

    act(client, FLAGS, "dismiss", flag)

    flag.refresh_from_db()
    assert flag.status == Flag.Status.DISMISSED
    assert Review.objects.get().by == admin
    assert marks.is_marked(flag.older, flag.newer)
    assert not Merge.objects.exists()


def test_relating_and_skipping_go_through_the_same_functions(client):
    related, skipped = FlagFactory(), FlagFactory()

    act(client, FLAGS, "relate", related)
    act(client, FLAGS, "skip", skipped)

    assert [review.verdict for review in Review.objects.order_by("pk")] == ["related", "skipped"]
    assert Flag.objects.get(pk=skipped.pk).status == Flag.Status.OPEN


def test_what_agents_confirmed_is_merged_and_taken_back(client, agent):
    flags = FlagFactory.create_batch(2)
    for flag in flags:
        review.confirm(flag=flag, canonical=flag.older, by=agent)

    act(client, FLAGS, "merge", *flags)
    assert {edge.duplicate for edge in Merge.objects.in_force()} == {f.newer for f in flags}

    act(client, MERGES, "take_back", *Merge.objects.all())
    assert not Merge.objects.in_force().exists()
    assert set(Flag.objects.to_merge()) == set(flags)


def test_what_does_not_wait_is_not_merged(client):
    page = act(client, FLAGS, "merge", FlagFactory()).content.decode()

    assert "do not wait to be merged" in page
    assert not Merge.objects.exists()


def test_one_that_was_decided_meanwhile_does_not_stop_the_others(client, agent):
    early, late = FlagFactory(), FlagFactory()
    review.dismiss(flag=early, by=agent)

    page = act(client, FLAGS, "confirm", early, late).content.decode()

    assert "decided already" in page
    assert "1 decided." in page
    assert Review.objects.filter(flag=early).count() == 1
    assert Merge.objects.get().canonical == late.older


def test_questions_of_other_readers_are_confirmed_and_stay_linked_only(client):
    flag = FlagFactory(newer__audience="private")

    act(client, FLAGS, "confirm", flag)

    flag.refresh_from_db()
    assert flag.status == Flag.Status.CONFIRMED
    assert not Merge.objects.exists()


def test_a_release_is_put_into_service(client, admin, monkeypatch):
    monkeypatch.setattr(releases, "prove_files", lambda release: None)
    monkeypatch.setattr(promoting, "judged", lambda release: [])
    old, new = ReleaseFactory(is_active=True), ReleaseFactory()

    act(client, RELEASES, "activate", new)

    new.refresh_from_db()
    assert releases.active() == new
    assert (new.previous, new.activated_by) == (old, admin)


def test_a_release_without_its_files_is_refused_and_the_old_one_stays(client):
    old, new = ReleaseFactory(is_active=True), ReleaseFactory()

    page = act(client, RELEASES, "activate", new).content.decode()

    assert "Refused" in page
    assert releases.active() == old
    with pytest.raises(ArtifactRefused):
        releases.activate(release=new)


def test_two_releases_are_not_put_into_service_at_once(client):
    act(client, RELEASES, "activate", ReleaseFactory(), ReleaseFactory())

    assert not Release.objects.filter(is_active=True).exists()


@pytest.mark.parametrize("action", ["confirm", "dismiss", "relate", "skip"])
def test_an_action_without_its_right_does_nothing(client, admin, action):
    for group in admin.groups.all():
        group.permissions.remove(Permission.objects.get(codename="review_flag"))
    flag = FlagFactory()

    act(client, FLAGS, action, flag)

    flag.refresh_from_db()
    assert flag.status == Flag.Status.OPEN
