"""What a report says of pairs that people judged."""

import json
import re

import numpy as np
import pytest

from dedup.ml import reporting
from dedup.ml.evaluation import average_precision
from dedup.ml.pairs import Pair
from dedup.ml.reporting import Held, Said
from tests.fakes import FakeScorer


def held(count=400, seed=1, duplicates=0.3):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < duplicates).astype(float)
    shares = np.where(rng.random(count) < 0.5, 1.0, 0.2)
    segments = [{"product": "lamp" if i % 4 else "fan", "language": "en"} for i in range(count)]
    segments[0] = segments[0] | {"language": "de"}
    pairs = [Pair(f"older {i}", f"newer {i}") for i in range(count)]
    return Held(pairs, labels, 1 / shares, list(range(count)), segments)


def said(pairs, noise, seed=2, threshold=0.5, name="new"):
    rng = np.random.default_rng(seed)
    raw = pairs.labels + rng.normal(0, noise, len(pairs.labels))
    return Said(name, 1 / (1 + np.exp(-3 * (raw - 0.5))), threshold)


@pytest.fixture(scope="module")
def own():
    pairs = held()
    return reporting.on_own_pairs(
        pairs, said(pairs, 0.5), 0.6, said(pairs, 1.5, seed=3, name="old")
    )


def test_every_figure_has_an_interval_around_it(own):
    assert set(own["figures"]) == set(reporting.FIGURES)
    for name, found in own["figures"].items():
        assert found["low"] <= found["value"] <= found["high"], name
        assert 0 <= found["low"] < found["high"] <= 1, name


def test_a_better_release_leads_in_what_ranks_and_errs_less(own):
    leads = own["leads"]

    assert leads["average_precision"]["low"] > 0
    assert leads["average_precision"]["p"] < 0.05
    assert leads["calibration_error"]["value"] < 0
    assert (own["against"]["release"], own["against"]["threshold"]) == ("old", 0.5)
    assert len(own["against"]["curve"]) == len(own["curve"])


def test_figures_at_the_threshold_are_of_each_releases_own():
    pairs = held()
    mine = said(pairs, 0.5, threshold=0.4)
    found = reporting.measured(pairs, mine, 0.6, None)["figures"]
    flagged, w = mine.probabilities >= 0.4, pairs.weights
    right = w[flagged & (pairs.labels > 0.5)].sum()

    assert found["precision"]["value"] == pytest.approx(right / w[flagged].sum())
    assert found["recall"]["value"] == pytest.approx(right / w[pairs.labels > 0.5].sum())
    same = reporting.measured(pairs, mine, 0.6, Said("b", mine.probabilities, 0.9))["leads"]
    assert same["average_precision"]["value"] == 0
    assert same["recall"]["value"] > 0


def test_segments_are_counted_and_small_ones_have_no_figure(own):
    lamp, fan = own["segments"]["product"]
    english, german = own["segments"]["language"]

    assert (lamp["value"], lamp["pairs"], fan["pairs"]) == ("lamp", 300, 100)
    assert set(fan["figures"]) == set(reporting.FIGURES)
    assert (german["pairs"], german["figures"], german["leads"]) == (1, {}, {})
    assert english["pairs"] == 399
    whole = own["figures"]["average_precision"]
    part = fan["figures"]["average_precision"]
    assert part["high"] - part["low"] > whole["high"] - whole["low"]


@pytest.mark.parametrize(
    "counts",
    [
        {"pairs": 49, "duplicates": 20, "clusters": 49},
        {"pairs": 400, "duplicates": 9, "clusters": 400},
        {"pairs": 400, "duplicates": 395, "clusters": 400},
        {"pairs": 400, "duplicates": 100, "clusters": 9},
    ],
)
def test_of_too_few_nothing_is_said(counts):
    assert not reporting.is_enough(counts)
    assert reporting.is_enough({"pairs": 50, "duplicates": 10, "clusters": 10})


def test_without_pairs_there_is_an_empty_report():
    none = Held([], np.asarray([]), np.asarray([]), [], [])
    found = reporting.on_own_pairs(none, Said("a", np.asarray([]), 0.5), 0.5, None)

    assert (found["pairs"], found["figures"], found["segments"]) == (0, {}, {})
    assert "curve" not in found
    assert reporting.pictures(none, Said("a", np.asarray([]), 0.5), None) == {}


def test_the_curve_falls_and_has_the_interval_around_it(own):
    curve = own["curve"]
    precisions = [point["precision"] for point in curve]

    assert [point["recall"] for point in curve] == pytest.approx(np.linspace(0.05, 1, 20))
    assert precisions == sorted(precisions, reverse=True)
    assert all(point["low"] <= point["precision"] <= point["high"] for point in curve)


def test_the_curve_is_what_thresholds_really_give():
    rng = np.random.default_rng(4)
    p, labels, w = rng.random(80), rng.random(80) < 0.4, rng.integers(1, 4, 80).astype(float)
    best = reporting.best_precisions(p, labels, w)

    for wanted, found in zip(reporting.RECALLS, best, strict=True):
        reached = [
            w[(p >= at) & labels].sum() / w[p >= at].sum()
            for at in p
            if w[(p >= at) & labels].sum() / w[labels].sum() >= wanted - 1e-9
        ]
        assert found == pytest.approx(max(reached))


def test_a_text_is_embedded_once_and_pairs_are_judged_in_order():
    scorer, read = FakeScorer(), []
    embed = scorer.embed
    scorer.embed = lambda texts: read.extend(texts) or embed(texts)
    pairs = [Pair("a b", "a b"), Pair("a b", "c d"), Pair("a b", "a d")]

    steps = []
    found = reporting.judged(scorer, pairs, lambda *said: steps.append(said), "comparing")

    assert found.tolist() == [1.0, 0.0, pytest.approx(1 / 3)]
    assert sorted(read) == ["a b", "a d", "c d"]
    assert steps[-1] == (0, 3, "comparing")


def test_speed_is_of_one_question_against_its_nearest():
    scorer = FakeScorer()
    texts = [f"lamp {i} dark" for i in range(60)]

    found = reporting.speed(scorer, texts, lambda *_: None)

    assert scorer.judged == reporting.ASKED * reporting.CANDIDATES
    assert found["milliseconds_median"] <= found["milliseconds_most"]
    assert found["pairs_a_second"] > 0
    assert found["cpu_seconds_per_1000"] > 0


def test_a_report_is_a_folder_of_numbers_words_and_pictures(tmp_path, own):
    pairs = held()
    drawn = reporting.pictures(pairs, said(pairs, 0.5), None)
    speed = reporting.speed(FakeScorer(), ["a", "b"], lambda *_: None)
    report = {
        "release": "new", "fingerprint": "f" * 64, "made_at": "2026-11-28T10:00:00+00:00",
        "own": own, "speed": speed,
    }  # fmt: skip

    reporting.write(tmp_path / "one", report, drawn)

    written = {path.name for path in (tmp_path / "one").iterdir()}
    assert written == {"report.json", "report.md", "reliability.svg", "precision-recall.svg"}
    assert json.loads((tmp_path / "one" / "report.json").read_text()) == json.loads(
        json.dumps(report)
    )
    text = (tmp_path / "one" / "report.md").read_text()
    value = own["figures"]["average_precision"]["value"]
    assert re.search(rf"\| average precision \| {value:.3f} \(", text)
    assert "| language | de | 1 | 0 | too few |" in text
    assert "above old" in text
    with pytest.raises(OSError, match="exists"):
        reporting.write(tmp_path / "one", report, drawn)


def test_weights_move_the_figure_as_they_should():
    pairs = held()
    mine = said(pairs, 0.8)
    found = reporting.measured(pairs, mine, 0.6, None)["figures"]["average_precision"]["value"]

    weighted = average_precision(mine.probabilities, pairs.labels, pairs.weights)
    assert found == weighted != average_precision(mine.probabilities, pairs.labels)
