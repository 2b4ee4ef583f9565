"""The written clusters are data, so a slip in them would show only in a worse release."""

import json
import random

import numpy as np
import pytest

from dedup.ml.clusters import (
    CHOOSING,
    FOLDER,
    REPORTING,
    TOPICS,
    Written,
    is_same,
    portal_shortlisted,
    read_clusters,
    shortlisted,
    training_names,
    training_pairs,
)
from tests.fakes import FakeScorer

DIFFERENCES = {
    "number", "version", "product", "negation", "direction", "scope", "time", "action",
}  # fmt: skip
FILES = sorted(file.stem for file in FOLDER.glob("*.jsonl"))


@pytest.mark.parametrize("name", FILES)
def test_each_cluster_has_three_questions_and_two_near_misses(name):
    for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert (len(row["questions"]), len(row["near_misses"])) == (3, 2), line
        assert {miss["difference"] for miss in row["near_misses"]} <= DIFFERENCES, line
        for text in row["questions"] + row["near_misses"]:
            assert 1 <= len(text["title"].strip()) <= 200, line
            assert isinstance(text["body"], str), line


def test_no_network_is_trained_on_the_trades_that_choose_and_report():
    assert set(training_names()) | {*CHOOSING, *REPORTING, *TOPICS} == set(FILES)
    assert not set(training_names()) & {*CHOOSING, *REPORTING, *TOPICS}


def test_a_near_miss_is_the_same_as_nothing():
    one, again = Written("a", "", 1), Written("b", "", 1)
    miss, other = Written("a!", "", 1, "negation"), Written("c", "", 2)

    assert is_same(one, again)
    assert not any(is_same(one, stranger) for stranger in (miss, other))


def test_training_pairs_hold_each_cluster_whole_and_siblings_beside():
    found = read_clusters(REPORTING[:1])[:10]  # two clusters
    near = [[j for j in range(10) if j != i] for i in range(10)]

    pairs = training_pairs(found, near, 1, random.Random(1))

    assert len(pairs) == 2 * 10 + 10
    assert sum(pair.label for pair in pairs) == 2 * 3


def test_a_shortlist_holds_each_pair_once_and_names_its_near_misses():
    listed = shortlisted(REPORTING[:1], FakeScorer().embed, 20)

    assert len({frozenset((p.first, p.second)) for p in listed.pairs}) == len(listed.pairs)
    assert set(listed.differences) <= DIFFERENCES | {""}
    assert all(not p.label for p, d in zip(listed.pairs, listed.differences, strict=True) if d)


def test_the_portal_s_shortlists_know_its_duplicates():
    listed = portal_shortlisted(FakeScorer().embed)

    assert np.sum([pair.label for pair in listed.pairs]) >= 20
