import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from django.core.management import call_command

from dedup.management.bench import promise
from dedup.management.bench.promise import Population


@pytest.fixture
def pairs():
    """Probabilities that are right about what they say, and labels."""
    rng = np.random.default_rng(3)
    p = rng.beta(0.4, 0.6, 4_000)
    return p, (rng.random(4_000) < p).astype(float)


def test_duplicates_are_as_rare_as_stated(pairs):
    population = Population.of(*pairs, prior=0.1, flag=0.5)

    assert population.mass.sum() == pytest.approx(1)
    assert population.mass[population.is_duplicate].sum() == pytest.approx(0.1)


def test_precision_and_recall_are_those_of_the_whole_population():
    p, labels = [0.9, 0.8, 0.7, 0.2], [1, 0, 1, 0]
    population = Population.of(p, labels, prior=0.2, flag=0.5)

    assert population.precision(0.75) == pytest.approx(0.1 / (0.1 + 0.4))
    assert population.recall(0.75) == 0.5
    assert population.best_recall(0.3) == 1.0
    assert population.best_recall(0.99) == 0.5


def test_portals_ask_about_all_that_is_flagged_and_a_few_from_below(pairs):
    population = Population.of(*pairs, prior=0.3, flag=0.5)
    rows = population.drawn(4_000, is_asked=True, rng=np.random.default_rng(1))

    below = population.probabilities[rows] < 0.5
    assert below.mean() == pytest.approx(promise.FROM_BELOW, abs=0.03)
    assert (population.share[rows][~below] == 1).all()
    assert (population.share[rows][below] < 1).all()


def test_what_the_labels_show_is_found_with_their_weights():
    p, labels = np.asarray([0.9, 0.8, 0.3]), np.asarray([1.0, 1.0, 0.0])

    assert promise.plug_in(p, labels, np.ones(3), 0.6) == 0.3
    assert promise.plug_in(p, labels, np.asarray([1, 1, 0.1]), 0.6) == 0.8
    assert promise.plug_in(p, 0 * labels, np.ones(3), 0.6) is None


def test_broken_and_missing_promises_are_counted():
    population = Population.of([0.9, 0.8, 0.7, 0.2], [1, 0, 1, 0], prior=0.5, flag=0.5)

    found = promise.what_came(population, 0.8, [0.85, 0.75, None, 0.85])

    assert (found["broken"], found["none"]) == (0.25, 0.25)
    assert found["recall"] == pytest.approx(3 * 0.5 / 4)
    assert found["recall_where_promised"] == 0.5


def test_the_bench_says_how_often_each_rule_breaks_its_word(pairs, monkeypatch):
    monkeypatch.setattr(promise, "scored", lambda *_: (*pairs, 0.5))
    out, quick = StringIO(), ["--portals", "12", "--labels", "400", "--wanted", "0.8"]

    call_command("bench", "promise", "--json", "--data", ".", "--prior", "0.5", *quick, stdout=out)

    rows = json.loads(out.getvalue())["rows"]
    assert {(row["rule"], row["asked"]) for row in rows} == {
        (rule, asked) for rule in promise.RULES for asked in (False, True)
    }
    broken = {rule: max(r["broken"] for r in rows if r["rule"] == rule) for rule in promise.RULES}
    assert broken["plug-in"] > 0.2 > broken["promised"]
    promise.tables(json.loads(out.getvalue()))


def test_sets_are_scored_by_the_release_that_ships(settings):
    folder = settings.DEDUP_ARTIFACTS / settings.DEDUP_RELEASE
    with pytest.raises(FileNotFoundError):
        promise.scored(folder, Path("/nowhere"), 1)
