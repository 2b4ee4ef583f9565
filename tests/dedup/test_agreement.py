"""How far people agree: the figures, and what they are made of."""

import random
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from dedup import agreement, desk, review
from dedup.models import BlindItem
from tests.factories import FlagFactory, ReleaseFactory, UserFactory

NOW = timezone.now()

verdicts = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=10, max_size=60)


@given(verdicts | st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=10))
def test_kappa_is_what_scikit_learn_says(said):
    ours = agreement.kappa(said)
    ones, others = zip(*said, strict=True)

    if len({*ones, *others}) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(cohen_kappa_score(ones, others), abs=1e-9)


def test_of_fewer_than_ten_pairs_no_kappa_is_given():
    said = [(True, True), (False, False)] * 5

    assert agreement.kappa(said) == 1
    assert agreement.kappa(said[:9]) is None


def test_who_throws_dice_agrees_no_better_than_chance():
    rng = random.Random(2)
    said = [(rng.random() < 0.9, rng.random() < 0.9) for _ in range(4000)]

    assert sum(one == other for one, other in said) > 3000
    assert abs(agreement.kappa(said)) < 0.05


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(8, 10, 0.490, 0.943), (0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (450, 500, 0.871, 0.923)],
)
def test_the_interval_of_a_share_is_wilsons(hits, of, low, high):
    assert agreement.wilson(hits, of) == pytest.approx((low, high), abs=0.0006)


@given(st.integers(1, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_an_interval_lies_around_its_share_within_what_is_possible(counts):
    low, high = agreement.wilson(*counts)

    assert 0 <= low <= counts[0] / counts[1] + 1e-12
    assert counts[0] / counts[1] - 1e-12 <= high <= 1


def test_about_nineteen_of_twenty_intervals_hold_the_truth():
    rng, held = random.Random(9), 0
    for _ in range(2000):
        low, high = agreement.wilson(sum(rng.random() < 0.85 for _ in range(40)), 40)
        held += low <= 0.85 <= high

    assert 0.93 < held / 2000 < 0.97


# What is compared


def case(by, stood, said, *, flag=None, at=NOW):
    """A pair that one person decided, and what others said of it blindly, by person."""
    flag = flag or FlagFactory(release=release())
    if stood == "confirmed":
        review.confirm(flag=flag, canonical=flag.older, by=by, now=at)
    else:
        review.dismiss(flag=flag, by=by, is_related=stood == "related", now=at)
    for person, verdict in said.items():
        BlindItem.objects.create(
            flag=flag, by=person, expected=stood, asked_share=0.1, verdict=verdict,
            drawn_at=at + timedelta(minutes=1), decided_at=at + timedelta(minutes=2),
        )  # fmt: skip
    return flag


def release():
    return ReleaseFactory._meta.model.objects.first() or ReleaseFactory()


@pytest.mark.django_db
def test_a_rate_counts_duplicate_or_not_and_no_answer_that_is_none(agent, admin):
    for stood, said in [
        ("confirmed", "confirmed"), ("dismissed", "related"), ("related", "dismissed"),
        ("confirmed", "related"), ("related", "confirmed"), ("confirmed", "skipped"),
        ("dismissed", "unsure"),
    ]:  # fmt: skip
        case(admin, stood, {agent: said})
    BlindItem.objects.create(flag=FlagFactory(), by=agent, expected="confirmed", asked_share=0.1)

    assert agreement.rate(agent) == agreement.Rate(3, 5)
    assert agreement.rates() == [(agent, agreement.Rate(3, 5))]
    assert agreement.rate(admin) == agreement.Rate(0, 0)


@pytest.mark.django_db
def test_any_two_who_judged_the_same_decision_are_compared(agent, admin):
    third = UserFactory()
    verdicts = [("confirmed", "confirmed", "confirmed")] * 6
    verdicts += [("dismissed", "related", "confirmed")] * 4 + [("dismissed", "confirmed", "")]
    for stood, one, other in verdicts:
        case(admin, stood, {agent: one} | ({third: other} if other else {}))

    found = {(row.one, row.other): (row.count, row.kappa) for row in agreement.kappas()}
    with_stood = cohen_kappa_score([1] * 6 + [0] * 5, [1] * 6 + [0] * 4 + [1])
    assert found == {
        (agent, admin): (11, pytest.approx(with_stood)),
        (admin, third): (10, pytest.approx(0)),
        (agent, third): (10, pytest.approx(0)),
    }
    assert next(iter(found)) == (agent, admin)


@pytest.mark.django_db
def test_two_who_always_said_one_and_the_same_have_no_kappa(agent, admin):
    for _ in range(10):
        case(admin, "dismissed", {agent: "related"})

    (row,) = agreement.kappas()
    assert (row.count, row.kappa) == (10, None)


@pytest.mark.django_db
def test_who_saw_what_another_had_decided_is_not_compared_with_them(agent, admin):
    for _ in range(10):
        flag = case(admin, "confirmed", {})
        desk.dispute(question=flag.newer, by=flag.newer.asked_by, reason="Mine is square")
        review.dismiss(flag=flag, by=agent)

    assert agreement.kappas() == []


@pytest.mark.django_db
def test_answers_to_two_decisions_on_one_pair_are_two_cases(agent, admin):
    third, later = UserFactory(), NOW + timedelta(days=1)
    for _ in range(10):
        flag = case(admin, "dismissed", {agent: "dismissed"})
        type(flag).objects.filter(pk=flag.pk).update(status="open")
        case(admin, "confirmed", {third: "confirmed"}, flag=flag, at=later)

    pairs = {(row.one, row.other) for row in agreement.kappas()}
    assert pairs == {(agent, admin), (admin, third)}


@pytest.mark.django_db
def test_a_decision_that_was_taken_back_is_compared_with_nothing(agent, admin):
    for _ in range(10):
        flag = case(admin, "dismissed", {agent: "dismissed"})
        review.undo(review=flag.reviews.get(), by=admin)

    assert agreement.kappas() == []


# The page


def text(client, name):
    return " ".join(client.get(reverse(name)).content.decode().split())


@pytest.fixture
def judged(agent, admin):
    for i in range(12):
        stood = "confirmed" if i < 5 else "dismissed"
        case(admin, stood, {agent: "confirmed" if i < 6 else "dismissed"})
    case(agent, "dismissed", {admin: "dismissed"})


@pytest.mark.django_db
def test_admins_see_who_agrees_how_often_and_with_whom(client, admin, agent, judged):
    client.force_login(admin)
    page = text(client, "agreement")

    assert "92 %" in page
    assert "65 to 99 %" in page
    assert "fewer than 10" in page  # of the admin's one answer nothing is said
    both = [1] * 5 + [0] * 8, [1] * 6 + [0] * 7
    assert f"{cohen_kappa_score(*both):.2f}" in page
    for name in ("to_merge", "review_queue"):
        assert reverse("agreement") in text(client, name)


@pytest.mark.django_db
def test_agents_see_their_own_figure_and_no_others(client, agent, admin, judged):
    client.force_login(agent)

    assert "Of 12 known cases you saw 11 as they had been decided" in text(client, "review_queue")
    for name in ("to_merge", "review_queue"):
        assert reverse("agreement") not in text(client, name)
    client.force_login(admin)
    assert "known cases you saw" not in text(client, "review_queue")


@pytest.mark.django_db
def test_before_anybody_was_asked_the_page_says_how_it_begins(client, admin):
    client.force_login(admin)

    assert "Nobody has been asked yet" in text(client, "agreement")


@pytest.mark.django_db
def test_the_page_asks_as_many_queries_however_many_answers_there_are(
    client, agent, admin, judged, django_assert_max_num_queries
):
    client.force_login(admin)
    client.get(reverse("agreement"))
    with django_assert_max_num_queries(60) as few:
        client.get(reverse("agreement"))
    for _ in range(3):
        person = UserFactory()
        for _ in range(10):
            case(admin, "dismissed", {agent: "dismissed", person: "dismissed"})

    with django_assert_max_num_queries(len(few)):
        assert "not defined" in text(client, "agreement")
