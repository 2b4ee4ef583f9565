"""What the pages of search, review and merging show. Who may open them: tests/test_access.py."""

import pytest
from django.urls import reverse
from django.utils import timezone

from dedup import desk, queue, review
from dedup.models import Flag, Review
from support import merging, outbox
from support.models import Merge, OutboxEntry, Question
from tests.factories import (
    AnswerFactory,
    FlagFactory,
    ProductFactory,
    QuestionFactory,
    SubscriptionFactory,
)

pytestmark = pytest.mark.django_db

TYPED = {"title": "Where is the switch of it?", "body": "It is dark.", "audience": "public"}


@pytest.fixture(autouse=True)
def by_words(monkeypatch):
    """No worker answers."""
    monkeypatch.setattr(outbox, "send", lambda *_args, **_kwargs: False)


@pytest.fixture
def flag():
    return FlagFactory(
        older=QuestionFactory(title="Where is the switch?"),
        newer=QuestionFactory(title="I cannot find the switch"),
    )


def text(answer):
    return answer.content.decode()


def versions(*questions):
    return {f"version-{question.pk}": question.version for question in questions}


def test_a_search_finds_marks_and_can_be_held_to_a_product_and_a_state(client):
    lamp = AnswerFactory(question=QuestionFactory(title="The switch hums")).question
    fan = QuestionFactory(title="Is there a switch?", product=ProductFactory(slug="fan"))

    def found(**query):
        hits = client.get("/", {"q": "switch", **query}).context["results"].hits
        return [hit.question for hit in hits]

    assert set(found()) == {lamp, fan}
    assert found(product="fan") == [fan]
    assert found(state="answered") == [lamp]
    assert found(state="open") == [fan]
    assert "The <mark>switch</mark> hums" in text(client.get("/", {"q": "switch"}))


def test_without_a_search_the_newest_are_listed_by_the_same_filters(client):
    lamp = AnswerFactory().question
    fan = QuestionFactory(product=ProductFactory(slug="fan"))

    def listed(**query):
        return list(client.get("/", query).context["page"])

    assert listed() == [fan, lamp]
    assert listed(product="fan") == [fan]
    assert listed(state="answered") == [lamp]
    assert listed(product="no-such", state="no-such", page="no-such") == [fan, lamp]


def test_without_javascript_similar_questions_come_before_anything_is_stored(client, customer):
    AnswerFactory(question=QuestionFactory(title="Where is the switch?"), body="**Behind** it.")
    client.force_login(customer)
    typed = TYPED | {"product": ProductFactory().pk}
    asked = Question.objects.filter(title=typed["title"])

    answer = client.post(reverse("ask"), typed)
    assert "Where is the switch?" in text(answer)
    assert "Behind it." in text(answer)
    assert not asked.exists()

    client.post(reverse("ask"), typed | {"seen_similar": "1"})
    assert asked.get().asked_by == customer


def test_what_is_different_is_put_into_the_details_and_shown_before_it_is_sent(client, customer):
    QuestionFactory(title="Where is the switch?")
    client.force_login(customer)
    typed = TYPED | {"product": ProductFactory().pk, "difference": "  Mine is <red>.  "}
    asked = Question.objects.filter(title=TYPED["title"])

    shown = text(client.post(reverse("ask"), typed | {"add_difference": "1"}))
    assert "It is dark.\n\nWhat is different: Mine is &lt;red&gt;.</textarea>" in shown
    assert "One moment: these look like your question." in shown
    assert not asked.exists()

    client.post(reverse("ask"), typed | {"seen_similar": "1"})
    assert asked.get().body == "It is dark.\n\nWhat is different: Mine is <red>."


def test_a_difference_that_finds_nothing_alike_any_more_is_still_looked_at_once(client, customer):
    client.force_login(customer)
    typed = TYPED | {"product": ProductFactory().pk, "difference": "Red.", "add_difference": "1"}

    shown = text(client.post(reverse("ask"), typed))
    assert "Look at it once more" in shown
    assert 'name="seen_similar"' in shown
    assert not Question.objects.exists()


def test_a_suggestion_says_under_which_title_it_was_found(client, customer, admin):
    duplicate = QuestionFactory(title="Flickering chandelier overhead")
    canonical = QuestionFactory(title="The lamp is dark")
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    client.force_login(customer)

    shown = text(client.post(reverse("similar"), {"title": "A flickering chandelier"}))
    assert "Asked here as: “<bdi>Flickering chandelier overhead</bdi>”" in shown
    assert canonical.get_absolute_url() in shown


def test_a_question_like_no_other_is_stored_at_once(client, customer):
    client.force_login(customer)
    client.post(reverse("ask"), TYPED | {"product": ProductFactory().pk})

    assert Question.objects.get().title == TYPED["title"]


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("switch", "While you write"),
        ("Where is the switch?", "1 similar question found."),
        ("Nothing of the kind", "No question with the same words found."),
    ],
)
def test_while_somebody_writes_it_is_said_how_many_resemble_it(client, customer, title, words):
    QuestionFactory(title="A switch is missing")
    client.force_login(customer)

    assert words in text(client.post(reverse("similar"), {"title": title}))


def test_the_queue_tells_what_waits_from_what_is_only_checked_again(client, agent):
    new, known = QuestionFactory(), QuestionFactory()
    outbox.put_all([new.pk, known.pk])
    OutboxEntry.objects.filter(question=known).update(settled_at=timezone.now())
    outbox.put_all([known.pk], is_background=True)
    client.force_login(agent)

    shown = " ".join(text(client.get(reverse("review_queue"))).split())

    assert "1 question waits for its check." in shown
    assert "1 question is being checked again." in shown


def test_the_queue_says_how_likely_and_what_is_special_about_a_pair(client, agent, flag):
    private = QuestionFactory(audience="private")
    FlagFactory(older=flag.older, newer=private, probability=0.99)
    client.force_login(agent)
    shown = text(client.get(reverse("review_queue")))

    assert shown.index("Likely the same") < shown.index("Perhaps the same")
    assert shown.count("Different readers") == 1
    assert "2 pairs wait" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("role", "audience", "words"),
    [
        ("admin", "public", "merges at once"),
        ("agent", "public", "on the list of what admins merge"),
        ("admin", "private", "links them for agents only"),
    ],
)
def test_a_card_says_what_its_decision_will_do(client, request, flag, role, audience, words):
    flag.newer.audience = audience
    flag.newer.save()
    client.force_login(request.getfixturevalue(role))

    assert words in text(client.get(reverse("review_card", args=[flag.pk])))


def test_a_card_shows_both_threads_whole(client, agent, admin, flag):
    AnswerFactory(question=flag.older, body="Behind the door.")
    merging.merge(duplicate=QuestionFactory(title="Switch?"), canonical=flag.newer, by=admin)
    client.force_login(agent)
    shown = text(client.get(reverse("review_card", args=[flag.pk])))

    assert "Behind the door." in shown
    assert "1 question was merged into it" in shown
    assert "Switch?" in shown


def at(flag):
    return reverse("review_card", args=[flag.pk])


def test_a_card_leads_to_the_pairs_before_and_after_it(client, agent, flag):
    before = FlagFactory(probability=0.95)
    after = FlagFactory(probability=0.85)
    same = FlagFactory(probability=flag.probability)
    client.force_login(agent)

    shown = client.get(reverse("review_card", args=[flag.pk])).context
    assert (shown["previous"], shown["next"]) == (at(before), at(same))
    shown = client.get(reverse("review_card", args=[after.pk])).context
    assert (shown["previous"], shown["next"]) == (at(same), None)


def test_the_second_decision_gets_who_decided_what(client, agent, admin, flag):
    review.dismiss(flag=flag, by=admin)
    client.force_login(agent)
    address = reverse("review_decide", args=[flag.pk])
    answer = client.post(address, {"verdict": "confirmed", "canonical": flag.older_id})

    assert answer.status_code == 409
    assert f"<bdi>{admin}</bdi> said “Not a duplicate”" in text(answer)
    assert Review.objects.count() == 1


@pytest.mark.parametrize("verdict", ["", "nonsense"])
def test_a_decision_that_is_none_changes_nothing(client, agent, flag, verdict):
    client.force_login(agent)
    answer = client.post(reverse("review_decide", args=[flag.pk]), {"verdict": verdict})

    assert answer.status_code == 400
    assert Review.objects.count() == 0


def test_a_card_on_which_a_text_changed_meanwhile_merges_nothing(client, admin, flag):
    client.force_login(admin)
    seen = versions(flag.older, flag.newer) | {"canonical": flag.older_id}
    Question.objects.filter(pk=flag.newer_id).update(version=2)
    address = reverse("review_decide", args=[flag.pk])

    assert client.post(address, seen | {"verdict": "confirmed"}).status_code == 409
    flag.refresh_from_db()
    assert flag.status == Flag.Status.OPEN


def test_the_decision_just_taken_can_be_undone_from_the_next_page(client, agent, flag):
    client.force_login(agent)
    address = reverse("review_decide", args=[flag.pk])
    shown = text(client.post(address, {"verdict": "dismissed"}, follow=True))
    undo = reverse("review_undo", args=[Review.objects.get().pk])

    assert undo in shown
    client.post(undo)
    flag.refresh_from_db()
    assert flag.status == Flag.Status.OPEN


def test_a_disputed_merge_is_shown_with_why_and_without_a_direction(client, admin, flag):
    merging.merge(duplicate=flag.newer, canonical=flag.older, by=admin)
    desk.dispute(question=flag.newer, by=flag.newer.asked_by, reason="Mine is on a wall.")
    client.force_login(admin)
    shown = text(client.get(reverse("review_card", args=[flag.pk])))

    assert "Mine is on a wall." in shown
    assert "takes the merge back" in shown
    assert 'name="canonical" value' in shown
    assert 'type="radio" name="canonical"' not in shown
    client.post(reverse("review_decide", args=[flag.pk]), {"verdict": "dismissed"})
    assert not Merge.objects.in_force().exists()


def test_a_merge_says_first_who_goes_who_stays_and_who_gets_mail(client, admin, flag):
    duplicate, canonical = flag.newer, flag.older
    child = QuestionFactory(title="Came along")
    merging.merge(duplicate=child, canonical=duplicate, by=admin)
    follower = SubscriptionFactory(question=duplicate).subscriber
    client.force_login(admin)
    shown = text(client.get(reverse("merge", args=[duplicate.pk, canonical.pk])))

    assert "Came along" in shown
    assert str(follower) in shown
    assert reverse("merge", args=[canonical.pk, duplicate.pk]) in shown


def test_a_merge_across_a_mark_warns_and_one_that_cannot_be_says_why(client, admin, flag):
    review.dismiss(flag=flag, by=admin)
    client.force_login(admin)
    address = reverse("merge", args=[flag.newer_id, flag.older_id])
    assert "Somebody said that these are not the same." in text(client.get(address))

    Question.objects.filter(pk=flag.newer_id).update(audience="private")
    shown = text(client.get(address))
    assert "These cannot be merged." in shown
    assert '<button class="primary" disabled>' in shown


def test_a_merge_from_a_page_that_never_showed_the_questions_is_refused(client, admin, flag):
    client.force_login(admin)
    address = reverse("merge", args=[flag.newer_id, flag.older_id])

    assert client.post(address, {"reason": "Same."}).status_code == 409
    client.post(address, versions(flag.older, flag.newer) | {"reason": "Same."})
    assert Merge.objects.get().reason == "Same."


def test_taking_back_says_what_comes_back_and_needs_the_right(client, agent, admin, flag):
    child = QuestionFactory(title="Came along")
    merging.merge(duplicate=child, canonical=flag.newer, by=admin)
    edge = merging.merge(duplicate=flag.newer, canonical=flag.older, by=admin)
    address = reverse("unmerge", args=[edge.pk])

    client.force_login(agent)
    assert client.post(address).status_code == 403
    client.force_login(admin)
    assert "Came along" in text(client.get(address))
    client.post(address)
    assert Question.objects.get(pk=flag.newer_id).canonical is None


def test_a_queue_of_many_costs_no_more_than_one_of_few(
    client, agent, flag, django_assert_max_num_queries
):
    client.force_login(agent)
    client.get(reverse("review_queue"))
    with django_assert_max_num_queries(100) as of_one:
        client.get(reverse("review_queue"))
    FlagFactory.create_batch(12, release=flag.release)

    with django_assert_max_num_queries(len(of_one)):
        client.get(reverse("review_queue"))


@pytest.mark.parametrize("count", [4, 60])
def test_a_decision_with_the_next_card_takes_33_queries_however_many_wait(
    client, agent, flag, count, django_assert_num_queries
):
    for pair in FlagFactory.create_batch(count, release=flag.release):
        AnswerFactory.create_batch(2, question=pair.older)
    client.force_login(agent)
    client.get(reverse("review_queue"))
    first, *held = queue.claim_next(agent, count=3)
    given = {"verdict": "dismissed", "held": [one.pk for one in held]}

    with django_assert_num_queries(33):
        answer = client.post(
            reverse("review_decide", args=[first.pk]), given, headers={"X-Desk": "1"}
        )
    assert answer.content.decode().count("<template data-ahead-card>") == 1
