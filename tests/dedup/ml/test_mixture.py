import random

import numpy as np
import pytest

from dedup.ml.biencoder import BiEncoder
from dedup.ml.data import labelled
from dedup.ml.mixture import UNKNOWN, Mixture, mined, mix, neighbours_of
from tests.dedup.ml.networks import write_base, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bi(tmp_path_factory):
    return BiEncoder(write_base(tmp_path_factory.mktemp("base")))


def pairs(rows):
    return {(row.first, row.second) for row in rows}


def test_a_mixture_has_as_many_rows_of_each_kind_as_it_names(data, bi):
    quora, mates = labelled(data, "qqp_train"), labelled(data, "qqp_train", kind="mates")

    made = mix(data, bi, Mixture(quora=4, quora_rounds=2, mates=3, strangers=20), seed=1)

    known = [row for row in made if row.label != UNKNOWN]
    assert len(known) == 4 * 2 + 3
    assert len([row for row in made if row.label == UNKNOWN]) == 20
    assert len(pairs(known) & pairs(quora)) == 4
    assert len(pairs(known) & pairs(mates)) == 3


def test_no_row_that_shares_a_question_with_the_evaluation_is_ever_taken(data):
    kept = labelled(data, "qqp_train") + labelled(data, "qqp_train", kind="mates")

    assert len(kept) == sum(n % 5 != 4 for n in range(45))
    assert len(pairs(kept)) == len(kept)


def test_the_same_seed_makes_the_same_mixture(data, bi):
    mixture = Mixture(quora=9, mates=3, mined=5, near_misses=2, strangers=10, forum_labels=True)

    assert mix(data, bi, mixture, seed=3) == mix(data, bi, mixture, seed=3)
    assert mix(data, bi, mixture, seed=3) != mix(data, bi, mixture, seed=4)


def test_a_mined_negative_is_no_pair_that_somebody_labelled(data, bi, monkeypatch):
    monkeypatch.setattr("dedup.ml.mixture.ALIKE", 2.0)  # a random network finds all texts alike
    kept = labelled(data, "qqp_train")

    made = mined(bi, kept, 10, random.Random(1))

    known = {frozenset(pair) for pair in pairs(kept)}
    assert made
    assert all(row.label == 0.0 and row.first != row.second for row in made)
    assert not {frozenset(pair) for pair in pairs(made)} & known


def test_what_is_too_alike_is_not_called_different(data, bi, monkeypatch):
    monkeypatch.setattr("dedup.ml.mixture.ALIKE", -1.0)

    assert mined(bi, labelled(data, "qqp_train"), 10, random.Random(1)) == []


def test_neighbours_are_the_nearest_others_in_order():
    vectors = np.random.default_rng(1).normal(size=(30, 5))
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)

    found = neighbours_of(vectors[:12], vectors, 4)

    assert found.tolist() == np.argsort(-likeness, axis=1)[:12, :4].tolist()
