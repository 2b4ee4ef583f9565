"""What the portal's pages show, and to whom. Who may open them: tests/test_access.py."""

import pytest
from django.urls import reverse
from django.utils import timezone

from support import answering, merging, outbox
from support.models import Acceptance, OutboxEntry, Subscription, Vote
from tests.factories import AnswerFactory, QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def pair(customer):
    """A question and, asked by the customer, the same again."""
    older = QuestionFactory(title="Where is the switch?")
    return QuestionFactory(title="I cannot find the switch", asked_by=customer), older


@pytest.fixture
def merged(pair, admin):
    duplicate, canonical = pair
    return merging.merge(
        duplicate=duplicate, canonical=canonical, by=admin, reason="Same thing.",
        evidence=merging.Evidence(0.934, "release-of-may"),
    )  # fmt: skip


def page(client, address, person=None, **query):
    if person:
        client.force_login(person)
    return client.get(address, query, follow=True)


def html(client, address, person=None, **query):
    return page(client, address, person, **query).content.decode()


def test_a_duplicate_s_address_leads_to_its_canonical_and_says_so(client, pair, merged):
    answer = page(client, pair[0].get_absolute_url())

    assert answer.redirect_chain == [(f"/questions/{pair[1].pk}/?duplicate={pair[0].pk}", 302)]
    assert "I cannot find the switch" in answer.content.decode()


def test_only_the_asker_of_a_duplicate_is_offered_to_say_that_it_differs(
    client, pair, merged, customer, agent
):
    address = pair[0].get_absolute_url()

    assert "Mine is different" not in html(client, address)
    assert "Mine is different" not in html(client, address, agent)
    assert "Mine is different" in html(client, address, customer)


def test_a_question_that_is_no_duplicate_of_this_one_gets_no_banner(client, pair):
    shown = page(client, pair[1].get_absolute_url(), duplicate=pair[0].pk)

    assert shown.context["duplicate"] is None


def test_answers_say_where_they_were_written_and_the_solution_stands_first(client, pair, merged):
    duplicate, canonical = pair
    AnswerFactory(question=duplicate, body="Under the table.")
    solution = AnswerFactory(question=canonical, body="Behind the door.")
    answering.accept_answer(question=canonical, answer=solution, by=canonical.asked_by)

    shown = html(client, canonical.get_absolute_url())
    assert shown.index("Behind the door.") < shown.index("Under the table.")
    assert "Written under “<bdi>I cannot find the switch</bdi>”" in shown


def test_who_asked_a_duplicate_may_say_what_solved_theirs(client, pair, merged, customer):
    duplicate, canonical = pair
    answer = AnswerFactory(question=canonical)
    accept = reverse("accept", args=[duplicate.pk, answer.pk])

    assert accept in html(client, canonical.get_absolute_url(), customer)
    client.post(accept)
    assert Acceptance.objects.get().question == duplicate
    assert "who asked it too" in html(client, canonical.get_absolute_url(), customer)


def test_customers_see_no_probability_no_release_and_no_history(client, pair, merged, customer):
    shown = html(client, pair[1].get_absolute_url(), customer)

    for secret in ("93 %", "release-of-may", "Same thing.", "History", "/manage/"):
        assert secret not in shown


def test_agents_see_who_merged_what_why_and_with_which_evidence(client, pair, merged, agent, admin):
    shown = html(client, pair[1].get_absolute_url(), agent)

    for told in ("93 %", "release-of-may", "Same thing.", str(admin)):
        assert told in shown


def test_only_who_may_merge_is_offered_to_take_a_merge_back(client, pair, merged, agent, admin):
    take_back = reverse("unmerge", args=[merged.pk])

    assert take_back not in html(client, pair[1].get_absolute_url(), agent)
    assert take_back in html(client, pair[1].get_absolute_url(), admin)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Unchecked: its check waits"),
        (
            {"quarantined_at": timezone.now(), "failure": "MemoryError"},
            "Unchecked: its check failed",
        ),
    ],
)
def test_agents_and_they_alone_see_that_a_question_is_unchecked(
    client, customer, agent, fields, words
):
    question = QuestionFactory(asked_by=customer)
    outbox.put(question, now=timezone.now())
    OutboxEntry.objects.update(**fields)

    assert words in html(client, question.get_absolute_url(), agent)
    assert "Unchecked" not in html(client, question.get_absolute_url(), customer)


def test_a_question_that_was_never_put_up_is_unchecked_to_agents(client, customer, agent):
    question = QuestionFactory(asked_by=customer)

    assert "Unchecked" in html(client, question.get_absolute_url(), agent)
    assert "Unchecked" not in html(client, question.get_absolute_url(), customer)


def test_a_question_that_is_checked_again_in_the_background_is_not_unchecked(client, agent):
    question = QuestionFactory()
    outbox.put(question)
    OutboxEntry.objects.update(settled_at=timezone.now(), checked_by="release")
    outbox.put_all([question.pk], is_background=True)

    assert "Unchecked" not in html(client, question.get_absolute_url(), agent)


def test_agents_and_they_alone_are_told_that_the_check_is_late(client, customer, agent):
    outbox.put(QuestionFactory(), now=timezone.now() - timezone.timedelta(minutes=2))

    assert "The duplicate check is late." in html(client, "/", agent)
    assert "The duplicate check is late." not in html(client, "/", customer)


def test_what_one_follows_and_has_too_is_pressed_and_can_be_released(client, customer):
    question = QuestionFactory()
    client.force_login(customer)
    for name, rows in (("vote", Vote.objects), ("follow", Subscription.objects)):
        address = reverse(name, args=[question.pk])
        client.post(address, {"on": "1"})
        assert rows.count() == 1
        assert 'aria-pressed="true"' in html(client, question.get_absolute_url())
        client.post(address)
        assert rows.count() == 0


def test_what_one_asked_says_what_became_of_it(client, pair, merged, customer):
    AnswerFactory(question=QuestionFactory(asked_by=customer))
    shown = html(client, reverse("mine"), customer)

    assert shown.count("Together with another") == 1
    assert "Answered" in shown


def test_an_edit_on_a_stale_page_keeps_what_was_typed_and_shows_what_is_there(client, customer):
    question = QuestionFactory(title="As it is now", asked_by=customer, version=2)
    client.force_login(customer)
    typed = {"title": "As I want it", "body": "", "audience": "public", "seen": "1"}
    answer = client.post(reverse("edit_question", args=[question.pk]), typed)

    assert answer.status_code == 409
    assert "As it is now" in answer.content.decode()
    assert 'value="As I want it"' in answer.content.decode()


def test_an_edit_is_stored_and_leaves_the_product_as_it_was(client, customer):
    question = QuestionFactory(asked_by=customer)
    client.force_login(customer)
    typed = {"title": "Better words", "body": "More.", "audience": "private", "seen": "1"}
    client.post(reverse("edit_question", args=[question.pk]), typed)

    question.refresh_from_db()
    assert (question.title, question.audience) == ("Better words", "private")
    assert question.product.slug == "lamp"


def test_an_empty_answer_is_refused_on_the_page_where_it_was_written(client, customer):
    question = QuestionFactory()
    client.force_login(customer)
    answer = client.post(reverse("answer", args=[question.pk]), {"body": "  \n "})

    assert answer.status_code == 400
    assert 'id="id_body_error"' in answer.content.decode()
    assert question.answers.count() == 0


def test_a_question_page_costs_the_same_however_long_its_thread(
    client, agent, django_assert_max_num_queries
):
    short, long = QuestionFactory(), QuestionFactory()
    AnswerFactory(question=short)
    for _ in range(12):
        AnswerFactory(question=long, written_by=UserFactory())
    client.force_login(agent)
    client.get(short.get_absolute_url())

    with django_assert_max_num_queries(100) as of_short:
        client.get(short.get_absolute_url())
    with django_assert_max_num_queries(len(of_short)):
        client.get(long.get_absolute_url())


def test_addresses_of_answers_and_duplicates_survive_a_merge_and_its_undoing(client, pair, admin):
    duplicate, canonical = pair
    answers = [AnswerFactory(question=question) for question in pair]
    places = [f"{a.question.get_absolute_url()}#answer-{a.pk}" for a in answers]

    def check():
        """A browser keeps what stands behind the hash when it is led on."""
        for place, question in zip(places, pair, strict=True):
            address, _, anchor = place.partition("#")
            shown = html(client, address)
            assert f'id="{anchor}"' in shown
            assert f'href="{place}"' in shown  # the same as before, wherever it is read
            assert question.title in shown

    check()
    edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    check()
    assert f'href="{duplicate.get_absolute_url()}"' in html(client, canonical.get_absolute_url())
    merging.unmerge(merge=edge, by=admin)
    check()
    assert page(client, duplicate.get_absolute_url()).redirect_chain == []


def test_from_one_s_own_questions_a_way_leads_to_saying_that_it_differs(
    client, pair, merged, customer
):
    shown = html(client, reverse("mine"), customer)
    address = f"/questions/{pair[1].pk}/?duplicate={pair[0].pk}#dispute-reason"

    assert f'href="{address}"' in shown
    assert '<details id="different">' in html(client, address)


@pytest.mark.parametrize(("code", "is_said"), [("de", True), ("en", False), ("", False)])
def test_the_language_of_a_question_is_said_where_it_is_not_the_reader_s(client, code, is_said):
    shown = html(client, QuestionFactory(language=code).get_absolute_url())

    assert ("<span>German</span>" in shown) == is_said
    assert (f'<h1 dir="auto" lang="{code}">' in shown) == bool(code)
