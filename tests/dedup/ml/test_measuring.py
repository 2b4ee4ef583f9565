import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import dedup.ml
from dedup.ml.baselines import tfidf_cosines
from dedup.ml.biencoder import BiEncoder
from dedup.ml.calibration import Calibration
from dedup.ml.card import model_card
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.data import labelled
from dedup.ml.evaluation import average_precision, bootstrap_interval, paired_interval
from dedup.ml.measuring import Measured, Measuring, random_halves
from dedup.ml.pairs import Pair
from dedup.ml.plots import precision_recall, reliability
from tests.dedup.ml.networks import write_base, write_rows

SHIPPED = sorted(Path(dedup.ml.__file__).parent.glob("artifacts/*/manifest.json"))


@pytest.fixture(scope="module")
def measuring(tmp_path_factory):
    folder = write_base(tmp_path_factory.mktemp("base"))
    data = tmp_path_factory.mktemp("data")
    things = ["door", "window", "car", "shop", "bill"]
    write_rows(data, "qqp_dev", [
        {"q1": f"open the {a}", "q2": f"how do i {v} a {b}", "label": int(a == b and v == "open")}
        for a in things for b in things for v in ("open", "close")
    ])  # fmt: skip
    write_rows(data, "stackexchange_questions", [
        {"site": "one", "id": str(n), "title": f"{a} {n}", "body": "my shop"}
        for n, a in enumerate(things)
    ])  # fmt: skip
    write_rows(data, "stackexchange_duplicate_links", [{"site": "one", "id1": "0", "id2": "3"}])
    calibration = Calibration(0.0, 1.0, 5.0)
    return Measuring(
        data, BiEncoder(folder), CrossEncoder(folder), calibration, calibration, flag=0.5
    )


def test_titles_are_measured_beside_cosine_and_words(measuring):
    found = measuring.titles("qqp_dev")

    rows = labelled(measuring.data, "qqp_dev")
    measured = Measured.of(rows, measuring.bi, measuring.cross)
    assert found["rows"] == 50
    assert found["cosine"] == average_precision(measured.cosines, measured.labels)
    assert found["tfidf"] == average_precision(tfidf_cosines(measured.pairs), measured.labels)
    assert found["asymmetry"] == 0.0
    assert set(found["by_length"]) == {"short", "middle", "long"}


def test_a_link_counts_by_the_rank_of_its_other_end(measuring):
    found = measuring.links()

    assert found["rows"] == 1
    assert 1 / found["release"] in {1, 2, 3, 4}
    assert 1 / found["cosine"] in {1, 2, 3, 4}


def test_words_alone_see_words():
    same, none = tfidf_cosines([Pair("open the door", "open the door"), Pair("pay", "shop")])

    assert (same, none) == pytest.approx((1, 0))


def test_a_better_ranking_leads_and_the_same_one_does_not():
    rng = np.random.default_rng(1)
    labels = (rng.uniform(size=400) < 0.3).astype(float)
    good, bad = labels + rng.normal(size=400) * 0.5, rng.normal(size=400)

    low, high = paired_interval(average_precision, good, bad, labels)
    around = bootstrap_interval(average_precision, good, labels)

    assert 0 < low < high
    assert around[0] < average_precision(good, labels) < around[1]
    assert paired_interval(average_precision, good, good, labels) == (0.0, 0.0)


def test_rows_beside_others_keep_their_order():
    one = Measured([Pair("a", "b")], np.asarray([1.0]), np.asarray([0.1]), np.asarray([0.0]))
    two = Measured([Pair("c", "d")], np.asarray([2.0]), np.asarray([0.2]), np.asarray([1.0]))

    both = one.beside(two)

    assert [pair.older for pair in both.pairs] == ["a", "c"]
    assert (both.logits.tolist(), both.labels.tolist()) == ([1.0, 2.0], [0.0, 1.0])


@pytest.mark.parametrize("name", ["reliability", "precision_recall"])
def test_a_picture_is_an_svg_that_says_what_it_shows(name):
    p, labels = np.linspace(0, 1, 50), np.arange(50) % 2
    drawn = (
        reliability(p, labels, "A <title>")
        if name == "reliability"
        else precision_recall([("one", p), ("two", -p)], labels, "A <title>")
    )

    root = ElementTree.fromstring(drawn)
    assert root.find("{*}title").text == "A <title>"
    numbers = re.findall(r'c[xy]="([\d.]+)"|points="([^"]*)"', drawn)
    assert numbers
    assert all(0 <= float(x) <= 456 for pair in numbers for x in re.findall(r"[\d.]+", str(pair)))


def test_what_needs_even_odds_is_measured_on_rows_that_they_were_not_fitted_on(measuring):
    rows = labelled(measuring.data, "qqp_dev")
    held = Measured.of(
        [rows[i] for i in random_halves(len(rows))[1]], measuring.bi, measuring.cross
    )

    found = measuring.titles("qqp_dev")

    assert found["rows"] == len(rows)
    p = held.probabilities(measuring.even)
    assert found["accuracy"] == pytest.approx(((p >= 0.5) == held.labels).mean())


def test_halves_share_no_row_and_each_has_both_labels_even_where_labels_take_turns():
    labels = np.tile([1.0, 0.0], 200)

    fitted, held = random_halves(len(labels))

    assert sorted([*fitted, *held]) == list(range(len(labels)))
    assert 0.4 < labels[fitted].mean() < 0.6
    assert 0.4 < labels[held].mean() < 0.6


@pytest.mark.parametrize("manifest", SHIPPED, ids=lambda file: file.parent.name)
def test_the_shipped_card_is_what_its_manifest_says(manifest):
    raw = json.loads(manifest.read_text(encoding="utf-8"))

    assert manifest.with_name("README.md").read_text(encoding="utf-8") == model_card(raw)
