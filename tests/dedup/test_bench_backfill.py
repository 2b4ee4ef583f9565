import gzip
import json
import subprocess
import sys

import pytest

from dedup.management.bench import backfill

THINGS = ["lamp", "door", "invoice", "password", "export", "tariff", "battery", "switch"]
DUPLICATES = [(f"How do I change the {one}?", f"How can the {one} be changed?") for one in THINGS]
OTHERS = [
    (f"Where do I find the {one} of number {n}?", f"Why is the {one} number {n} so loud?")
    for n, one in enumerate(THINGS * 3)
]


@pytest.fixture
def data(tmp_path):
    rows = [{"q1": a, "q2": b, "label": 1} for a, b in DUPLICATES]
    rows += [{"q1": a, "q2": b, "label": 0} for a, b in OTHERS]
    rows.append({"q1": DUPLICATES[0][1], "q2": "Can the lamp be changed?", "label": 1})
    with gzip.open(tmp_path / backfill.PAIRS, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return tmp_path


def test_so_many_duplicates_are_planted_and_no_more(data, monkeypatch):
    monkeypatch.setattr(backfill, "SHARE_PLANTED", 0.1)

    corpus = backfill.read(data / backfill.PAIRS, 40)

    assert (len(corpus.texts), len(set(corpus.texts)), len(corpus.planted)) == (40, 40, 4)
    known = {frozenset(pair) for pair in DUPLICATES}
    known.add(frozenset([DUPLICATES[0][1], "Can the lamp be changed?"]))
    known.add(frozenset([DUPLICATES[0][0], "Can the lamp be changed?"]))
    both = {pair for pair in known if pair <= set(corpus.texts)}
    assert both == {frozenset(corpus.texts[place] for place in pair) for pair in corpus.planted}


def test_labelled_others_are_those_whose_questions_are_both_there(data):
    corpus = backfill.read(data / backfill.PAIRS, 20)

    others = {frozenset(corpus.texts[place] for place in pair) for pair in corpus.others}
    assert others
    assert others <= {frozenset(pair) for pair in OTHERS}


@pytest.mark.slow
def test_a_backfill_is_measured_with_its_worker_killed_on_the_way(data):
    command = [sys.executable, "manage.py", "bench", "backfill", "--json", "--data", str(data)]
    ran = subprocess.run(
        [*command, "--questions", "56", "--kills", "1", "--ask", "1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    found = json.loads(ran.stdout.splitlines()[-1])
    assert (found["lost"], found["doubled_flags"], found["doubled_scores"]) == (0, 0, 0)
    assert found["kills"] == 1
    assert found["held_when_killed"][0] > 0
    assert found["job"]["questions"] == found["questions"] == 56
    assert found["planted"] == found["flagged"]["planted"]
    assert found["pairs_scored"] >= found["pairs_read"] > 0
