import gzip
import json
import random
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from dedup import shortlist
from dedup.management.bench import shortlist as bench
from support.models import Question
from tests.fakes import FakeScorer

LINKS = [
    ("How do I reset my password?", "I forgot my password, how can it be reset?", 1),
    ("how do I reset my password?", "Password reset: how?", 1),
    ("Why was I charged twice?", "Charged twice this month, why?", 1),
    ("Why was I charged twice?", "Can I pay by card?", 0),
]


@pytest.fixture
def data(tmp_path):
    with gzip.open(tmp_path / bench.FILE, "wt", encoding="utf-8") as file:
        for one, other, label in LINKS:
            file.write(json.dumps({"q1": one, "q2": other, "label": label}) + "\n")
    return tmp_path


@pytest.fixture
def corpus(data):
    texts, mates = bench.linked(data / bench.FILE)
    return bench.Corpus(texts, mates, FakeScorer().embed(texts).astype(np.float16))


def test_questions_that_differ_by_case_alone_are_one_and_links_go_both_ways(corpus):
    assert len(corpus.texts) == 5
    assert corpus.mates == {0: {1, 2}, 1: {0}, 2: {0}, 3: {4}, 4: {3}}


def test_made_up_questions_fill_the_corpus_up_and_lie_on_the_unit_sphere(corpus):
    filled = bench.fill(corpus, 40)

    norms = np.linalg.norm(filled.vectors.astype(np.float32), axis=1)
    assert len(filled.texts) == len(filled.vectors) == 40
    assert filled.texts[:5] == corpus.texts
    np.testing.assert_allclose(norms, 1, atol=1e-3)


@pytest.mark.django_db(transaction=True)
def test_known_mates_are_looked_for_by_the_shortlist_that_serves(corpus):
    filled = bench.fill(corpus, 60)
    bench.load(filled)

    found = bench.measure(filled, FakeScorer().embed, 5, Console(quiet=True))

    assert found["queries"] == Question.objects.count() - 55 == 5
    assert found["recall"]["as asked"]["both"]["50"] == 1
    assert found["recall"]["half of the words"]["both"]["100"] <= 1
    assert found["of_exact"]["all"]["share"] > 0.9
    assert {table.title for table in bench.tables(found)} >= {"The whole shortlist"}


@pytest.mark.django_db(transaction=True)
def test_a_mate_that_is_not_found_lowers_the_recall(corpus, monkeypatch):
    bench.load(corpus)
    monkeypatch.setattr(shortlist, "by_words", lambda *_: [])
    monkeypatch.setattr(shortlist, "by_vector", lambda *_: [2])  # row 1, mate of row 0 alone
    query = bench.Query(0, corpus.texts[0], corpus.vectors[0])

    found = bench.recall(corpus, [query], lambda: None)

    assert found["both"]["50"] == 0.5
    assert found["both"]["any"] == 1


def test_the_nearest_are_those_of_a_plain_computation_whatever_the_block(corpus, monkeypatch):
    monkeypatch.setattr(bench, "BLOCK", 7)
    filled = bench.fill(corpus, 60)
    query = bench.Query(2, corpus.texts[2], FakeScorer().embed([corpus.texts[2]])[0])
    allowed = np.arange(2, 61)
    rows = filled.vectors[allowed - 1].astype(np.float32)
    likeness = rows @ query.vector / np.linalg.norm(rows, axis=1)
    likeness[allowed == 3] = -2  # itself

    [found] = bench.nearest(filled, [query], allowed, 5)

    assert found == set(allowed[np.argsort(-likeness)[:5]].tolist())


def test_spoiling_keeps_the_letters_or_half_of_the_words():
    text = "Where does the payment history of last December appear on my statement"

    typos = bench.with_typos(text, random.Random(3))
    fewer = bench.with_words_dropped(text, random.Random(3))

    assert typos != text
    assert sorted(typos) == sorted(text)
    assert 1 <= len(fewer.split()) < len(text.split())
    assert bench.with_words_dropped("Why?", random.Random(1)) == "Why?"


@pytest.mark.slow
def test_the_command_measures_in_a_database_that_is_gone_afterwards(data):
    argv = [sys.executable, "manage.py", "bench", "shortlist", "--json", "--data", str(data)]
    kept = ["--keep", str(data), "--rows", "200", "--queries", "3"]

    done = subprocess.run([*argv, *kept], capture_output=True, text=True, check=True)

    found = json.loads(done.stdout)
    assert found["rows"] == 200
    assert found["draw"]["p95_ms"] > 0
    assert len(list(data.glob("vectors-*.npy"))) == 1
