import random
from datetime import datetime
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.decision import ScoredCandidate, decide, permanent_number, sample
from dedup.texts import Text


def scored(question_id, probability, root_id=None):
    return ScoredCandidate(question_id, root_id or question_id, "h" * 64, 0.0, 0.0, probability)


def ids(candidates, **given):
    return [c.question_id for c in decide(candidates, **{"threshold": 0.8, "limit": 5} | given)]


def test_the_likeliest_come_first_and_none_below_the_threshold():
    assert ids([scored(1, 0.81), scored(2, 0.99), scored(3, 0.79)]) == [2, 1]


def test_what_is_exactly_at_the_threshold_is_flagged():
    assert ids([scored(1, 0.8)]) == [1]


def test_of_one_thread_only_the_likeliest_question_is_flagged():
    assert ids([scored(1, 0.85, root_id=9), scored(2, 0.95, root_id=9), scored(3, 0.9)]) == [2, 3]


def test_the_limit_counts_threads_and_not_questions():
    candidates = [scored(1, 0.99, root_id=9), scored(2, 0.98, root_id=9), scored(3, 0.9)]

    assert ids(candidates, limit=2) == [1, 3]


def test_of_two_equally_likely_the_older_is_first():
    assert ids([scored(7, 0.9), scored(3, 0.9)]) == [3, 7]


def test_nothing_that_is_not_a_number_is_flagged():
    assert ids([scored(1, float("nan")), scored(2, 0.9)]) == [2]


candidates = st.lists(
    st.builds(scored, st.integers(1, 50), st.floats(0, 1), st.integers(1, 8)), max_size=30
)


@given(candidates, st.floats(0.01, 1), st.integers(0, 6))
def test_a_decision_needs_nothing_but_the_set_of_what_was_scored(found, threshold, limit):
    chosen = decide(found, threshold=threshold, limit=limit)

    assert len(chosen) <= limit
    assert len({c.root_id for c in chosen}) == len(chosen)
    assert [c.probability for c in chosen] == sorted((c.probability for c in chosen), reverse=True)
    kept = [c.probability for c in decide(reversed(found), threshold=threshold, limit=limit)]
    assert kept == [c.probability for c in chosen]
    roots = {c.root_id for c in found if c.probability >= threshold}
    assert len(chosen) == min(limit, len(roots))


def drawn(found, *, number=0.0, per_question=0.05, threshold=0.8):
    chosen = sample(
        found, threshold=threshold, per_question=per_question, draw=lambda _candidate: number
    )
    return {one.candidate.question_id: one.share for one in chosen}


def text(question_id, words="same"):
    return Text(question_id, (datetime.min, question_id), words, f"{words:0<64}")  # noqa: DTZ901


def test_only_what_lies_below_the_threshold_is_drawn_and_one_of_each_thread():
    found = [
        scored(1, 0.9, root_id=7), scored(2, 0.3, root_id=7), scored(3, 0.5, root_id=8),
        scored(4, 0.4, root_id=8), scored(5, 0.8), scored(6, 0.0), scored(9, float("nan")),
    ]  # fmt: skip

    assert set(drawn(found)) == {3, 6}


def test_shares_grow_with_the_probability_are_never_nothing_and_sum_up_to_what_is_wanted():
    shares = drawn([scored(i, p) for i, p in enumerate([0.0, 0.01, 0.25, 0.64], 1)])

    assert 0 < shares[1] < shares[2] < shares[3] < shares[4]
    assert shares[4] / shares[3] == pytest.approx(1.6)
    assert sum(shares.values()) == pytest.approx(0.05)


different = candidates.map(lambda found: list({one.question_id: one for one in found}.values()))


@given(different, st.floats(0, 20), st.floats(0, 1, exclude_max=True))
def test_a_pair_is_drawn_exactly_where_its_number_lies_below_its_share(found, wanted, number):
    all_shares = drawn(found, per_question=wanted)
    chosen = drawn(found, per_question=wanted, number=number)

    assert chosen == {pk: share for pk, share in all_shares.items() if number < share}
    assert all(0 < share <= 1 for share in all_shares.values())
    assert sum(all_shares.values()) <= wanted + 1e-9


def test_a_pair_has_one_number_until_a_text_changes():
    number = permanent_number(text(1), text(2))

    assert number == permanent_number(text(2), text(1))
    assert 0 <= number < 1
    others = [permanent_number(text(1, "new"), text(2)), permanent_number(text(1), text(3))]
    assert number not in others


def test_numbers_of_pairs_are_spread_evenly():
    numbers = [permanent_number(text(i), text(j)) for i in range(100) for j in range(i)]

    tenths = [sum(tenth <= 10 * one < tenth + 1 for one in numbers) for tenth in range(10)]
    expected = len(numbers) / 10
    assert sum((count - expected) ** 2 / expected for count in tenths) < 27.9  # chi², 9, 0.001


@pytest.mark.parametrize("per_question", [0.05, 1.0])
def test_what_is_drawn_estimates_the_duplicates_below_the_threshold(per_question):
    """Horvitz and Thompson 1952: one / share for each that people found, over 2,000 questions."""
    rng = random.Random(11)
    truth, estimate, variance, asked = 0, 0.0, 0.0, 0
    for question in range(2000):
        found = [scored(10_000 * question + i, 0.9 * rng.random() ** 6) for i in range(20)]
        same = {one.question_id: rng.random() < one.probability for one in found}
        shares = drawn(found, per_question=per_question)
        chosen = sample(
            found, threshold=0.8, per_question=per_question,
            draw=lambda one, question=question: permanent_number(
                text(question), text(one.question_id)
            ),
        )  # fmt: skip
        asked += len(chosen)
        truth += sum(same[pk] for pk in shares)
        estimate += sum(1 / one.share for one in chosen if same[one.candidate.question_id])
        variance += sum((1 - share) / share for pk, share in shares.items() if same[pk])

    assert 1000 < truth < 10_000
    assert asked == pytest.approx(2000 * per_question, rel=0.2)
    assert abs(estimate - truth) < 2.6 * sqrt(variance)
    assert sqrt(variance) < (0.3 if per_question == 0.05 else 0.06) * truth
