import json
from io import StringIO

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from dedup.management.bench import sampling as bench

PORTALS = {"pairs": 1_000, "candidates": 10, "prior": 0.1}


@pytest.fixture
def pool():
    """Probabilities that are right: a pair of 0.3 is a duplicate in 3 of 10 cases."""
    rng = np.random.default_rng(5)
    said = rng.beta(0.3, 0.5, 5_000)
    return bench.Pool(said, (rng.random(5_000) < said).astype(float), 0.5)


def test_a_portal_has_as_many_pairs_and_duplicates_as_are_wanted(pool):
    rows = bench.draw(pool, PORTALS, np.random.default_rng(1))

    assert len(rows) == 1_000
    assert pool.labels[rows].mean() == pytest.approx(0.1, abs=0.03)


def test_what_is_asked_below_the_threshold_is_what_a_check_asks(pool):
    rng = np.random.default_rng(2)
    asked = [found for _ in range(400) for found in bench.asked_below(
        pool.probabilities[:10], pool.threshold, 0.5, rng
    )]  # fmt: skip

    assert len(asked) / 400 == pytest.approx(0.5, abs=0.12)
    assert all(pool.probabilities[row] < pool.threshold for row, _ in asked)


def test_the_estimate_is_near_the_truth_and_counting_is_not(pool):
    rng = np.random.default_rng(3)
    found = bench.summed([bench.trial(pool, 1.0, PORTALS, rng) for _ in range(40)])

    assert abs(found["bias"]) < 0.05
    assert found["bias_flagged_only"] > found["bias_unweighted"] > 0.1
    assert found["covered"] > 0.8
    assert found["silent"] == 0


def test_portals_with_too_few_answers_are_counted_as_silent(pool):
    rng = np.random.default_rng(3)
    found = bench.summed([bench.trial(pool, 0.01, PORTALS, rng) for _ in range(5)])

    assert (found["silent"], found["covered"]) == (5, None)


def test_a_threshold_is_found_that_finds_so_many(pool):
    other = pool.at_recall(0.8)
    same = pool.labels > 0.5

    assert (pool.probabilities[same] >= other.threshold).mean() == pytest.approx(0.8, abs=0.01)


def test_the_command_prints_figures_for_each_set_threshold_and_share(pool, monkeypatch):
    monkeypatch.setattr(bench, "scored", lambda *_: pool)
    given = ["--data", "x", "--portals", "2", "--pairs", "500", "--recalls", "0.7"]
    out = StringIO()
    call_command("bench", "sampling", "--json", *given, stdout=out)
    lines = json.loads(out.getvalue())["lines"]

    assert len(lines) == 2 * 2 * 2
    assert {line["per_question"] for line in lines} == {0.05, 0.5}
    call_command("bench", "sampling", *given, stdout=out)
    assert "Recall estimated in 2 portals" in out.getvalue()


def test_a_folder_without_the_sets_is_said_to_be_so(tmp_path):
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("bench", "sampling", "--data", str(tmp_path), stdout=StringIO())
