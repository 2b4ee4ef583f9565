import json
from functools import partial

import numpy as np
import pytest

from dedup.ml import refitting
from dedup.ml.artifact import ArtifactRefused, verify
from dedup.ml.calibration import Calibration, fit_calibration
from dedup.ml.clusters import Shortlisted
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.data import Labelled
from dedup.ml.pairs import Pair
from dedup.ml.refitting import Asked, RefitRefused, as_precise, refit
from dedup.ml.release import open_release
from tests.dedup.ml.networks import write_parent

WANTED = {"flag": 0.6, "suggest": 0.2, "sure": 0.8}
BEFORE = {"flag": 0.5, "suggest": 0.1, "sure": 0.9}
THINGS = ["door", "window", "car", "shop", "bill"]


def rows(count, *, share=1.0):
    """Half of them duplicates, as far as a network of chance can tell: by their words."""

    def row(n):
        same, other = f"open my {THINGS[n % 5]}", f"pay the {THINGS[(n + 2) % 5]} bill in my shop"
        first = f"open the {THINGS[n % 5]} {n % 3}"
        return Asked(first, same if n % 2 else other, float(n % 2), share if n % 4 == 0 else 1.0)

    return [row(n) for n in range(count)]


@pytest.fixture
def parent(tmp_path, monkeypatch):
    written = Shortlisted([Labelled("open the door", "open my door", 1.0),
                           Labelled("open the door", "pay the bill", 0.0)], ["", ""])  # fmt: skip
    monkeypatch.setattr("dedup.ml.measuring.shortlisted", lambda *_: written)
    return write_parent(tmp_path / "before-1")


def made(parent, out, **changes):
    given = {
        "write": partial(refitting.write_trained, parent / "cross-encoder"),
        "tune": rows(80), "hold": rows(40), "wanted": WANTED,
        "before_at": BEFORE,
        "about": {
            "parent": {"name": "before-1", "fingerprint": "f"},
            "labels": {"train": 300, "tune": 80, "hold": 40},
            "recipe": {"start": "current", "steps": 9, "seconds": 60.0, "seed": 1, "way": 1.0},
        },
    }  # fmt: skip
    return refit(parent=parent, out=out, **{**given, **changes})


@pytest.fixture
def _any_logit(monkeypatch):
    """A network of chance tells nothing: what is tested here is not how well it learned."""
    fit = refitting.fit_calibration

    def fitted(*given, **named):
        found = fit(*given, **named)
        return Calibration(found.bias, abs(found.by_logit) + 0.1, found.by_cosine, found.prior)

    monkeypatch.setattr(refitting, "fit_calibration", fitted)


@pytest.mark.usefixtures("_any_logit")
def test_what_was_trained_becomes_a_release_that_proves_itself(parent, tmp_path):
    raw = made(parent, tmp_path / "after-1")

    opened = open_release(tmp_path / "after-1")
    assert opened.manifest.raw["parent"]["name"] == "before-1"
    assert opened.embedding_fingerprint == verify(parent).embedding_fingerprint
    assert raw["languages"] == ["en", "de"]
    assert (opened.calibration.low, opened.calibration.high) == (0.42, 0.72)
    card = (tmp_path / "after-1" / "README.md").read_text()
    assert "300 pairs that people judged" in card
    assert (tmp_path / "after-1" / "reliability.svg").exists()


@pytest.mark.usefixtures("_any_logit")
def test_labels_stand_for_as_many_pairs_as_their_share_says(parent, tmp_path):
    plain = made(parent, tmp_path / "plain")
    weighed = made(parent, tmp_path / "weighed", tune=rows(80, share=0.01))

    assert plain["calibration"]["coefficients"]["prior"] == pytest.approx(0.5)
    # 40 duplicates and 20 others asked about for sure, 20 that each stand for a hundred
    assert weighed["calibration"]["coefficients"]["prior"] == pytest.approx(40 / 2060)
    assert weighed["calibration"]["stands_for"] == pytest.approx(2060)
    assert not weighed["calibration"]["is_of_flagged_alone"]


@pytest.mark.usefixtures("_any_logit")
def test_where_nobody_was_asked_below_the_threshold_nothing_is_promised(parent, tmp_path):
    raw = made(parent, tmp_path / "after-1")

    assert {at["basis"] for at in raw["thresholds"].values()} == {refitting.AS_BEFORE}
    assert raw["calibration"]["is_of_flagged_alone"]
    card = (tmp_path / "after-1" / "README.md").read_text()
    assert "nobody was asked about any below the threshold" in card


@pytest.mark.usefixtures("_any_logit")
def test_thresholds_keep_their_order(parent, tmp_path):
    at = {
        name: row["probability"]
        for name, row in made(parent, tmp_path / "after-1")["thresholds"].items()
    }

    assert at["suggest"] <= at["flag"] <= at["sure"]


def test_too_few_labels_make_no_release_and_leave_nothing(parent, tmp_path):
    few = rows(refitting.ENOUGH - 1)
    one_kind = [row for row in rows(400) if row.label][: refitting.ENOUGH] + rows(10)

    for tune in (few, one_kind):
        with pytest.raises(RefitRefused, match="too_few"):
            made(parent, tmp_path / "after-1", tune=tune)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["before-1"]


def test_a_logit_that_speaks_the_wrong_way_makes_no_release(parent, tmp_path, monkeypatch):
    monkeypatch.setattr(
        refitting, "fit_calibration", lambda *_, **__: Calibration(-5.0, -0.3, 10.0, 0.5)
    )

    with pytest.raises(RefitRefused, match="tells_nothing"):
        made(parent, tmp_path / "after-1")

    assert not list(tmp_path.glob("**/.making-*"))


@pytest.mark.usefixtures("_any_logit")
def test_a_name_that_is_taken_is_refused(parent, tmp_path):
    (tmp_path / "after-1").mkdir()

    with pytest.raises(RefitRefused, match="name_taken"):
        made(parent, tmp_path / "after-1")


def test_a_parent_with_another_file_is_refused(parent, tmp_path):
    (parent / "cross-encoder" / "config.json").write_text("{}")

    with pytest.raises(ArtifactRefused):
        made(parent, tmp_path / "after-1")


def test_the_threshold_as_before_is_as_precise_by_the_new_probabilities():
    new = np.array([0.9, 0.8, 0.6, 0.4, 0.2, 0.1])
    before = np.array([0.7, 0.2, 0.9, 0.6, 0.1, 0.1])  # flagged: the first, third and fourth

    at = as_precise(new, before, 0.5, np.ones(6))

    # their mean is 0.633; of the new ones in order, means are 0.9, 0.85, 0.77, 0.675, 0.58
    assert at == 0.4
    assert as_precise(new, before, 0.95, np.ones(6)) == 0.95  # it had flagged nothing


def test_a_precision_counts_each_label_for_its_pairs(parent):
    judged = refitting.Judged.of(
        [Asked("open the door", "open my door", 1.0), Asked("open the door", "car", 0.0, 0.25)],
        CrossEncoder(parent / "cross-encoder"), open_release(parent),
    )  # fmt: skip

    found = refitting.measured_at(0.5, 0.6, np.array([0.9, 0.9]), judged)

    assert found["precision"] == pytest.approx(0.2)
    assert found["flagged"] == 2
    assert found["low"] < 0.2 < found["high"]


def test_a_network_of_another_kind_is_not_gone_on_from(parent):
    assert refitting.can_go_on(parent)

    config = json.loads((parent / "cross-encoder/config.json").read_text())
    (parent / "cross-encoder/config.json").write_text(
        json.dumps(config | {"model_type": "roberta"})
    )
    assert not refitting.can_go_on(parent)


def test_a_calibration_with_weights_is_that_of_the_rows_repeated():
    rng = np.random.default_rng(3)
    logits, cosines = rng.normal(size=300), rng.uniform(0.4, 0.9, 300)
    labels = (rng.random(300) < 1 / (1 + np.exp(-logits))).astype(float)
    times = rng.integers(1, 30, 300)

    weighed = fit_calibration(logits, cosines, labels, 1e-9, weights=times)
    repeated = fit_calibration(*(np.repeat(v, times) for v in (logits, cosines, labels)), 1e-9)

    assert weighed.by_logit == pytest.approx(repeated.by_logit, abs=1e-4)
    assert weighed.bias == pytest.approx(repeated.bias, abs=1e-3)
    assert weighed.prior == pytest.approx(repeated.prior)


def test_probabilities_speak_of_all_pairs_where_few_were_asked_about():
    """Drawn with known shares out of many pairs, the weighed fit finds what all of them say."""
    rng = np.random.default_rng(5)
    logits, cosines = rng.normal(-2, 2, 40_000), rng.uniform(0.4, 0.9, 40_000)
    true = 1 / (1 + np.exp(-(logits - 1)))
    labels = (rng.random(40_000) < true).astype(float)
    share = np.where(logits > 1, 1.0, 0.03)
    asked = rng.random(40_000) < share

    found = fit_calibration(logits[asked], cosines[asked], labels[asked], weights=1 / share[asked])

    p = found.probabilities(logits, cosines)
    assert p.mean() == pytest.approx(labels.mean(), rel=0.1)
    low = logits <= 1
    assert p[low].mean() == pytest.approx(labels[low].mean(), rel=0.2)


def test_very_unlike_weights_do_not_throw_the_fit_off():
    rng = np.random.default_rng(1)
    logits, cosines = rng.normal(0, 3, 120), rng.uniform(0.4, 0.95, 120)
    labels = (logits + rng.normal(0, 2, 120) > 2).astype(float)
    weights = np.where(logits > 1, 1.0, 5_000.0)

    found = fit_calibration(logits, cosines, labels, weights=weights)

    assert np.isfinite([found.bias, found.by_logit, found.by_cosine]).all()
    assert 0 < found.by_logit < 20


def test_thresholds_are_chosen_on_labels_that_calibrated_nothing_where_there_are_enough(parent):
    read = refitting.Judged.of(
        rows(refitting.HALVED, share=0.1), CrossEncoder(parent / "cross-encoder"),
        open_release(parent),
    )  # fmt: skip

    one, other = refitting.halves(read)

    kinds = [sorted((row.label, row.share) for row in half.rows) for half in (one, other)]
    assert kinds[0] == kinds[1]
    assert refitting.halves(read.part(range(refitting.HALVED - 1)))[0].rows == (
        refitting.halves(read.part(range(refitting.HALVED - 1)))[1].rows
    )


def test_what_is_promised_holds_for_pairs_that_nobody_asked_about(parent):
    """Many are drawn with a small chance: the promise speaks of all pairs, not of those asked."""
    rng = np.random.default_rng(2)
    kept = 0
    for _ in range(20):
        p = rng.random(4_000)
        labels = (rng.random(4_000) < p).astype(float)
        share = np.where(p > 0.7, 1.0, 0.1)
        asked = np.flatnonzero(rng.random(4_000) < share)
        judged = refitting.Judged(
            tuple(Asked("", "", labels[i], share[i]) for i in asked),
            refitting.Measured([Pair("", "")] * len(asked), p[asked], p[asked], labels[asked]),
            p[asked],
        )
        at = refitting.promise(p[asked], judged, 0.7)
        kept += at is None or labels[p >= at].mean() >= 0.7

    assert kept >= 18
