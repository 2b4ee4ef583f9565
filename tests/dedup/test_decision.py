from hypothesis import given
from hypothesis import strategies as st

from dedup.decision import ScoredCandidate, decide


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
