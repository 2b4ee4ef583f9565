"""The page of a cluster, and what leads to it. Who may open it: tests/test_access.py."""

import re

import pytest
from django.urls import reverse

from dedup import queue, review
from dedup.models import Flag, Review
from support import merging
from support.models import Merge, Question
from tests.dedup.test_cluster import Case
from tests.factories import AnswerFactory, FlagFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def case():
    """Five that are one, and F, which only E is a little like."""
    return Case("ABCDEF", AB=0.97, BC=0.94, AD=0.93, DE=0.9, CD=0.86, EF=0.82)


def page(case, pair="AB"):
    return reverse("review_cluster", args=[case[pair].pk])


def text(answer):
    return " ".join(answer.content.decode().split())


def form_of(answer, **chosen):
    """What the page's form sends when nothing but this is changed."""
    shown = answer.content.decode()
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', shown)
    fields += re.findall(r'<input type="radio" name="([^"]+)" value="([^"]*)"[^>]* checked>', shown)
    sent = {}
    for name, value in fields:
        sent.setdefault(name, []).append(value)
    return sent | {name: [value] for name, value in chosen.items()}


def decide(client, case, **chosen):
    sent = form_of(client.get(page(case)), **chosen)
    return client.post(f"{page(case)}decide/", sent)


def member(case, letter):
    return f"member-{case.questions[letter].pk}"


def test_a_card_leads_to_the_cluster_in_which_its_pair_is(client, agent, case):
    client.force_login(agent)
    shown = text(client.get(reverse("review_card", args=[case["AB"].pk])))
    assert "<strong>2 more questions</strong> seem to be the same" in shown
    assert page(case) in shown

    lonely = FlagFactory()
    shown = text(client.get(reverse("review_card", args=[lonely.pk])))
    assert "more question" not in shown
    alone = client.get(reverse("review_cluster", args=[lonely.pk]))
    assert alone.url == reverse("review_card", args=[lonely.pk])


def test_a_card_in_a_cluster_costs_as_many_queries_as_one_alone(
    client, agent, case, django_assert_max_num_queries
):
    lonely = FlagFactory(release=case.release)
    client.force_login(agent)
    with django_assert_max_num_queries(100) as of_one:
        client.get(reverse("review_card", args=[lonely.pk]))

    with django_assert_max_num_queries(len(of_one)):
        client.get(reverse("review_card", args=[case["AB"].pk]))


def test_a_page_of_many_costs_as_many_queries_as_one_of_few(
    client, agent, django_assert_max_num_queries
):
    release = ReleaseFactory(sure_threshold=0.8)
    few = [FlagFactory(release=release)]
    FlagFactory(older=few[0].older, release=release)
    client.force_login(agent)
    address = reverse("review_cluster", args=[few[0].pk])
    client.get(address)
    with django_assert_max_num_queries(30) as of_few:
        client.get(address)
    for _ in range(8):
        grown = FlagFactory(older=few[0].older, release=release)
        AnswerFactory.create_batch(2, question=grown.newer)

    with django_assert_max_num_queries(len(of_few)):
        assert len(client.get(address).context["members"]) == 11


def test_the_page_names_the_weakest_pair_and_shows_each_thread_whole(client, agent, admin, case):
    AnswerFactory(question=case["B"], body="Behind the **door**.")
    merging.merge(duplicate=QuestionFactory(title="Switch?"), canonical=case["D"], by=admin)
    review.dismiss(flag=case.join("AF", 0.5), by=admin)
    client.force_login(agent)
    answer = client.get(page(case))
    shown = text(answer)

    assert case.letters(answer.context["weakest"]) == "EF"
    assert "Behind the <strong>door</strong>." in shown
    assert "Switch?" in shown
    assert "Somebody has said that these are not duplicates" in shown
    assert shown.count("Hangs on the weakest pair") == 1
    assert answer.context["canonical"] == case["B"].pk  # the answered one


@pytest.mark.parametrize(
    ("role", "audience", "words"),
    [
        ("admin", "public", "What is the same is merged at once."),
        ("agent", "public", "on the list of what admins merge"),
        ("admin", "private", "linked for agents only"),
    ],
)
def test_the_page_says_what_its_button_will_do(client, request, case, role, audience, words):
    Question.objects.filter(pk=case["C"].pk).update(audience=audience)
    client.force_login(request.getfixturevalue(role))

    assert words in text(client.get(page(case)))


def test_five_are_merged_one_is_let_out_and_one_undo_takes_it_back(client, admin, case):
    client.force_login(admin)
    done = decide(client, case, **{member(case, "F"): "out"})

    assert done.url == f"{reverse('review_next')}?"
    assert case.threads() == {"A": "ABCDE", "F": "F"}
    shown = client.get(done.url, follow=True)
    assert "6 decided together: " in text(shown)
    undo = reverse("review_undo", args=[Review.objects.get(flag=case["AB"]).pk])
    assert undo in text(shown)
    back = client.post(undo)
    assert back.url == reverse("review_queue")
    assert case.threads() == {letter: letter for letter in "ABCDEF"}
    assert Flag.objects.open().count() == 6


def test_the_one_that_was_to_stay_can_be_let_out(client, admin, case):
    client.force_login(admin)
    decide(client, case, **{member(case, "A"): "out", member(case, "F"): "open"})

    assert case.threads() == {"A": "A", "B": "BCDE", "F": "F"}


def test_another_one_can_stay(client, admin, case):
    client.force_login(admin)
    decide(client, case, canonical=str(case["E"].pk))

    assert case.threads() == {"E": "ABCDEF"}


def test_a_stale_page_stores_nothing_and_keeps_what_was_chosen(client, admin, case):
    client.force_login(admin)
    sent = form_of(client.get(page(case)), **{member(case, "F"): "out"})
    Question.objects.filter(pk=case["C"].pk).update(version=2)
    refused = client.post(f"{page(case)}decide/", sent)

    assert refused.status_code == 409
    assert "These questions were edited meanwhile." in text(refused)
    assert [m.choice for m in refused.context["members"]] == ["same"] * 5 + ["out"]
    assert not Review.objects.exists()


def test_a_page_that_never_showed_the_texts_stores_nothing(client, admin, case):
    client.force_login(admin)
    sent = {member(case, letter): "same" for letter in "AB"}

    assert client.post(f"{page(case)}decide/", sent).status_code == 409
    assert not Merge.objects.exists()


def test_a_lost_race_says_who_won_and_shows_what_is_left(client, agent, admin, case):
    client.force_login(admin)
    sent = form_of(client.get(page(case)))
    review.dismiss(flag=case["EF"], by=agent)
    refused = client.post(f"{page(case)}decide/", sent)

    assert refused.status_code == 409
    assert f"<bdi>{agent}</bdi> said “Not a duplicate”" in text(refused)
    assert case.letters(m.question for m in refused.context["members"]) == "ABCDE"
    assert not Merge.objects.exists()


def test_where_nothing_is_left_of_the_cluster_its_card_says_why(client, agent, admin, case):
    client.force_login(admin)
    sent = form_of(client.get(page(case)))
    review.dismiss(flag=case["AB"], by=agent)
    refused = client.post(f"{page(case)}decide/", sent)

    assert refused.status_code == 409
    assert "dedup/card.html" in {template.name for template in refused.templates}
    assert f"<bdi>{agent}</bdi> said “Not a duplicate”" in text(refused)


def test_fewer_than_two_that_are_the_same_are_refused_kindly(client, admin, case):
    client.force_login(admin)
    refused = decide(client, case, **{member(case, letter): "out" for letter in "ABCDE"})

    assert refused.status_code == 409
    assert "Choose two or more that are the same." in text(refused)


def test_the_page_holds_its_pairs_and_says_who_has_one(client, agent, admin, case):
    queue.claim(flag=case["DE"], by=admin)
    client.force_login(agent)
    shown = text(client.get(page(case)))

    assert f"whoever decides first, decides: <bdi>{admin}</bdi>" in shown
    assert Flag.objects.filter(claimed_by=agent).count() == 5
    assert case["DE"].claimed_by == admin
