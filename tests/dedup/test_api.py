from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from dedup import releases, review
from dedup.models import Draft, Flag, Review
from support import merging
from support.models import Merge, MergeGrant, Question
from tests.factories import FlagFactory, ProductFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db
API = "/api/v1"


def as_(person):
    client = APIClient()
    client.force_authenticate(person)
    return client


def canonical_of(question):
    return Question.objects.get(pk=question.pk).canonical_id


class TestSimilar:
    def test_a_text_finds_what_resembles_it_and_leaves_nothing_behind(self, customer):
        found = QuestionFactory(title="How do I dim the lamp?")
        QuestionFactory(title="Where is my parcel?")

        answer = as_(customer).post(f"{API}/similar/", {"title": "dim the lamp"})

        assert answer.status_code == 200
        assert answer.json()["by_meaning"] is False  # no worker runs here
        assert [row["id"] for row in answer.json()["questions"]] == [found.pk]
        assert Question.objects.count() == 2
        assert not Draft.objects.exists()

    def test_what_the_caller_may_not_read_is_not_found(self, customer, agent):
        hidden = QuestionFactory(title="How do I dim the lamp?", audience="private")
        given = {"title": "dim the lamp"}

        assert as_(customer).post(f"{API}/similar/", given).json()["questions"] == []
        found = as_(agent).post(f"{API}/similar/", given).json()["questions"]
        assert [row["id"] for row in found] == [hidden.pk]

    def test_a_duplicate_is_found_as_its_canonical(self, customer, admin):
        duplicate = QuestionFactory(title="How do I dim the lamp?")
        canonical = QuestionFactory(title="Brightness")
        merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

        answer = as_(customer).post(f"{API}/similar/", {"title": "dim the lamp"})

        assert [row["id"] for row in answer.json()["questions"]] == [canonical.pk]

    def test_no_customer_sees_a_score(self, customer):
        QuestionFactory(title="How do I dim the lamp?")

        answer = as_(customer).post(f"{API}/similar/", {"title": "dim the lamp"})

        assert set(answer.json()) == {"by_meaning", "questions"}
        assert not {"probability", "score", "rank"} & set(answer.json()["questions"][0])

    def test_it_can_be_narrowed_to_a_product(self, customer):
        QuestionFactory(title="How do I dim the lamp?")
        desk = QuestionFactory(
            title="Does the desk dim the lamp?", product=ProductFactory(slug="desk", name="Desk")
        )

        answer = as_(customer).post(f"{API}/similar/", {"title": "dim lamp", "product": "desk"})

        assert [row["id"] for row in answer.json()["questions"]] == [desk.pk]

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({}, "required"),
            ({"title": "\u200b"}, "blank"),
            ({"title": "x" * 201}, "too_long"),
            ({"title": "x", "body": "x" * 20_001}, "too_long"),
            ({"title": "x", "limit": 9}, "unknown_field"),
            ({"title": "x", "product": "moon"}, "does_not_exist"),
        ],
    )
    def test_a_bad_text_is_refused(self, customer, given, code):
        answer = as_(customer).post(f"{API}/similar/", given)

        assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize("rows", ["flags", "reviews", "merges", "releases"])
class TestWhoReviews:
    def test_customers_see_none_of_it(self, customer, rows):
        answer = as_(customer).get(f"{API}/{rows}/")

        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")

    def test_agents_do(self, agent, rows):
        assert as_(agent).get(f"{API}/{rows}/").json()["results"] == []

    def test_guests_are_asked_who_they_are(self, rows):
        assert APIClient().get(f"{API}/{rows}/").status_code == 401


class TestFlags:
    def test_a_flag_names_its_pair_its_probability_and_its_release(self, agent):
        flag = FlagFactory()

        said = as_(agent).get(f"{API}/flags/{flag.pk}/").json()

        assert (said["older"], said["newer"]) == (flag.older_id, flag.newer_id)
        assert (said["probability"], said["release"]) == (0.9, flag.release.name)

    def test_the_list_can_be_narrowed_by_state_and_probability(self, agent):
        likely, _, dismissed = FlagFactory(), FlagFactory(probability=0.5), FlagFactory()
        review.dismiss(flag=dismissed, by=agent)

        found = as_(agent).get(f"{API}/flags/?status=open&probability__gte=0.8").json()["results"]

        assert [row["id"] for row in found] == [likely.pk]

    def test_the_list_takes_one_query_however_long_it_is(self, agent, django_assert_num_queries):
        FlagFactory.create_batch(10)
        client = as_(agent)
        client.get(f"{API}/flags/")

        with django_assert_num_queries(1):
            assert len(client.get(f"{API}/flags/").json()["results"]) == 10


class TestReviews:
    def decide(self, person, flag, **given):
        return as_(person).post(f"{API}/flags/{flag.pk}/reviews/", given)

    def test_an_agent_confirms_and_the_pair_waits_for_an_admin(self, agent):
        flag = FlagFactory()

        answer = self.decide(agent, flag, verdict="confirmed", canonical=flag.newer_id)

        assert answer.status_code == 201
        assert (answer.json()["canonical"], answer.json()["merge"]) == (flag.newer_id, None)
        assert list(Flag.objects.to_merge()) == [flag]

    def test_an_admin_confirms_and_the_pair_is_merged(self, admin):
        flag = FlagFactory()

        answer = self.decide(admin, flag, verdict="confirmed", canonical=flag.newer_id)

        assert answer.json()["merge"] == Merge.objects.get().pk
        assert canonical_of(flag.older) == flag.newer_id

    def test_without_a_canonical_the_older_stays(self, admin):
        flag = FlagFactory()

        self.decide(admin, flag, verdict="confirmed")

        assert canonical_of(flag.newer) == flag.older_id

    def test_a_dismissed_pair_is_closed_and_a_skipped_one_is_not(self, agent):
        dismissed, skipped = FlagFactory(), FlagFactory()

        assert self.decide(agent, dismissed, verdict="dismissed").status_code == 201
        assert self.decide(agent, skipped, verdict="skipped").status_code == 201

        assert list(Flag.objects.open()) == [skipped]

    @pytest.mark.parametrize("verdict", ["confirmed", "dismissed", "skipped"])
    def test_the_second_decision_is_told_who_decided_what(self, agent, admin, verdict):
        flag = FlagFactory()
        self.decide(agent, flag, verdict="dismissed")

        answer = self.decide(admin, flag, verdict=verdict)

        said = answer.json()
        assert (answer.status_code, said["code"]) == (409, "flag_closed")
        assert (said["decided_by"], said["verdict"]) == (agent.username, "dismissed")
        assert said["decided_at"]
        assert Review.objects.count() == 1

    def test_a_pair_can_be_related_left_to_others_and_left_for_later(self, agent):
        related, unsure, later = FlagFactory.create_batch(3)
        until = (timezone.now() + timedelta(days=2)).isoformat()

        self.decide(agent, related, verdict="related")
        self.decide(agent, unsure, verdict="unsure", note="Which lamp?")
        self.decide(agent, later, verdict="snoozed", until=until)

        for flag in (related, unsure, later):
            flag.refresh_from_db()
        assert (related.status, unsure.unsure) == ("related", "Which lamp?")
        assert later.snoozed_until.isoformat() == until

    def test_a_time_that_lies_behind_is_refused(self, agent):
        yesterday = timezone.now() - timedelta(days=1)
        answer = self.decide(agent, FlagFactory(), verdict="snoozed", until=yesterday.isoformat())

        assert (answer.status_code, answer.json()["code"]) == (409, "wrong_time")

    @pytest.mark.parametrize("verdict", ["confirmed", "dismissed", "related"])
    def test_a_decision_on_texts_that_were_edited_since_is_a_conflict(self, agent, verdict):
        flag = FlagFactory()
        answer = self.decide(agent, flag, verdict=verdict, versions={str(flag.older_id): 7})

        assert (answer.status_code, answer.json()["code"]) == (409, "stale")
        assert not Review.objects.exists()

    def test_a_canonical_from_elsewhere_is_refused(self, admin):
        flag = FlagFactory()

        answer = self.decide(admin, flag, verdict="confirmed", canonical=QuestionFactory().pk)

        assert (answer.status_code, answer.json()["code"]) == (400, "not_of_pair")
        assert flag in Flag.objects.open()

    def test_an_unknown_verdict_is_refused(self, agent):
        answer = self.decide(agent, FlagFactory(), verdict="maybe")

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_choice")

    def test_a_customer_decides_nothing(self, customer):
        flag = FlagFactory()

        assert self.decide(customer, flag, verdict="dismissed").status_code == 403
        assert flag in Flag.objects.open()

    def test_a_repeated_decision_with_its_key_is_the_same_decision(self, agent):
        flag = FlagFactory()
        address = f"{API}/flags/{flag.pk}/reviews/"
        answers = [
            as_(agent).post(address, {"verdict": "dismissed"}, HTTP_IDEMPOTENCY_KEY="once")
            for _ in range(2)
        ]

        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].json() == answers[1].json()

    def test_ones_own_decision_can_be_taken_back_with_its_merge(self, admin):
        flag = FlagFactory()
        said = self.decide(admin, flag, verdict="confirmed").json()

        answer = as_(admin).post(f"{API}/reviews/{said['id']}/undo/")

        assert answer.status_code == 200
        assert answer.json()["undone_at"]
        assert canonical_of(flag.newer) is None
        assert flag in Flag.objects.open()

    def test_the_decision_of_another_cannot(self, agent, admin):
        flag = FlagFactory()
        said = self.decide(agent, flag, verdict="dismissed").json()

        answer = as_(admin).post(f"{API}/reviews/{said['id']}/undo/")

        assert (answer.status_code, answer.json()["code"]) == (409, "not_yours")

    def test_the_list_takes_one_query_however_long_it_is(self, agent, django_assert_num_queries):
        for flag in FlagFactory.create_batch(5):
            review.dismiss(flag=flag, by=agent)
        client = as_(agent)
        client.get(f"{API}/reviews/")

        with django_assert_num_queries(1):
            assert len(client.get(f"{API}/reviews/").json()["results"]) == 5


class TestMerges:
    def merge(self, person, duplicate, canonical, **given):
        body = {"duplicate": duplicate.pk, "canonical": canonical.pk, **given}
        return as_(person).post(f"{API}/merges/", body)

    def test_an_admin_merges_and_takes_it_back_and_both_can_be_repeated(self, admin):
        duplicate, canonical = QuestionFactory.create_batch(2)

        first = self.merge(admin, duplicate, canonical, reason="Same lamp.")
        again = self.merge(admin, duplicate, canonical)

        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json() == again.json()
        assert canonical_of(duplicate) == canonical.pk
        undone = [as_(admin).post(f"{API}/merges/{first.json()['id']}/undo/") for _ in range(2)]
        assert [answer.status_code for answer in undone] == [200, 200]
        assert undone[0].json() == undone[1].json()
        assert canonical_of(duplicate) is None

    def test_an_agent_may_not_merge_unless_in_a_product_given_to_them(self, agent):
        duplicate, canonical = QuestionFactory.create_batch(2)

        refused = self.merge(agent, duplicate, canonical)
        MergeGrant.objects.create(agent=agent, product=canonical.product)
        done = self.merge(agent, duplicate, canonical)

        assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
        assert done.status_code == 201

    def test_who_may_not_merge_may_not_unmerge(self, agent, customer, admin):
        duplicate, canonical = QuestionFactory.create_batch(2)
        edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

        for person in (agent, customer):
            assert as_(person).post(f"{API}/merges/{edge.pk}/undo/").status_code == 403
        assert canonical_of(duplicate) == canonical.pk

    def test_a_question_is_not_merged_into_itself(self, admin):
        question = QuestionFactory()

        answer = self.merge(admin, question, question)

        assert (answer.status_code, answer.json()["code"]) == (409, "same_question")

    def test_a_merged_target_is_refused_with_its_canonical(self, admin):
        one, two, three = QuestionFactory.create_batch(3)
        self.merge(admin, two, three)

        answer = self.merge(admin, one, two)

        said = answer.json()
        assert (answer.status_code, said["code"]) == (409, "merged")
        assert (said["question"], said["canonical"]) == (two.pk, three.pk)

    def test_a_circle_is_refused(self, admin):
        one, two = QuestionFactory.create_batch(2)
        self.merge(admin, one, two)

        assert self.merge(admin, two, one).status_code == 409

    def test_questions_of_other_readers_are_refused(self, admin):
        private = QuestionFactory(audience="private")

        answer = self.merge(admin, private, QuestionFactory())

        assert (answer.status_code, answer.json()["code"]) == (409, "audience_differs")

    def test_a_stale_version_is_told_what_changed(self, admin):
        duplicate, canonical = QuestionFactory(), QuestionFactory(version=2)
        seen = {str(duplicate.pk): 1, str(canonical.pk): 1}

        answer = self.merge(admin, duplicate, canonical, versions=seen)

        assert (answer.status_code, answer.json()["code"]) == (409, "stale")
        assert answer.json()["changed"] == [canonical.pk]
        assert canonical_of(duplicate) is None

    def test_merges_can_be_found_by_their_questions(self, admin):
        one, two, three, four = QuestionFactory.create_batch(4)
        edge = merging.merge(duplicate=one, canonical=two, by=admin)
        merging.merge(duplicate=three, canonical=four, by=admin)

        found = as_(admin).get(f"{API}/merges/?duplicate={one.pk}").json()["results"]

        assert [row["id"] for row in found] == [edge.pk]

    @pytest.mark.django_db(transaction=True)
    def test_a_merge_with_a_key_is_tried_again_when_its_threads_moved(self, admin, monkeypatch):
        duplicate, canonical = QuestionFactory.create_batch(2)
        tries, lock = [], merging.lock_threads

        def moved_once(*ids):
            tries.append(ids)
            if len(tries) == 1:
                raise merging.ThreadsMoved("These are being merged by somebody else.")
            return lock(*ids)

        monkeypatch.setattr(merging, "lock_threads", moved_once)
        answer = as_(admin).post(
            f"{API}/merges/", {"duplicate": duplicate.pk, "canonical": canonical.pk},
            HTTP_IDEMPOTENCY_KEY="k",
        )  # fmt: skip

        assert answer.status_code == 201
        assert len(tries) > 1

    @pytest.mark.django_db(transaction=True)
    def test_threads_that_never_stand_still_are_a_conflict(self, admin, monkeypatch):
        duplicate, canonical = QuestionFactory.create_batch(2)

        def moved(*_ids):
            raise merging.ThreadsMoved("These are being merged by somebody else.")

        monkeypatch.setattr(merging, "lock_threads", moved)
        for headers in ({}, {"HTTP_IDEMPOTENCY_KEY": "k"}):
            answer = as_(admin).post(
                f"{API}/merges/", {"duplicate": duplicate.pk, "canonical": canonical.pk}, **headers
            )
            assert (answer.status_code, answer.json()["code"]) == (409, "busy")


class TestReleases:
    def test_agents_see_which_release_is_in_service_and_change_nothing(self, agent):
        release = ReleaseFactory(is_active=True)
        client = as_(agent)

        assert client.get(f"{API}/releases/{release.pk}/").json()["is_active"] is True
        for method in ("post", "put", "patch", "delete"):
            answer = getattr(client, method)(f"{API}/releases/{release.pk}/", {})
            assert answer.status_code == 405

    def test_what_keeps_a_release_out_is_a_409_that_lists_it(self, admin):
        active, release = ReleaseFactory(is_active=True), ReleaseFactory()

        answer = as_(admin).post(f"{API}/releases/{release.pk}/promote/", {})

        assert (answer.status_code, answer.json()["code"]) == (409, "gates_shut")
        assert {"gate", "state", "found"} == set(answer.json()["gates"][0])
        active.refresh_from_db()
        assert active.is_active

    def test_the_release_before_comes_back(self, admin, monkeypatch):
        monkeypatch.setattr(releases, "prove_files", lambda release: None)
        former = ReleaseFactory()
        ReleaseFactory(is_active=True, previous=former)

        answer = as_(admin).post(f"{API}/releases/back/")

        assert (answer.status_code, answer.json()["name"]) == (200, former.name)
        assert as_(admin).post(f"{API}/releases/back/").json()["code"] == "no_way_back"
