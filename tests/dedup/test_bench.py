import json
from io import StringIO

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from dedup.management.bench import scorer
from dedup.ml.pairs import Pair

QUICK = ["--pairs", "3", "--rounds", "1", "--threads", "1", "--drift", "4"]


def test_the_scorer_is_measured_beside_the_reference_in_one_run():
    out = StringIO()

    call_command("bench", "scorer", "--json", *QUICK, stdout=out)

    found = json.loads(out.getvalue())
    ways = {key.partition("|")[0] for key in found["threads"]["1"]["seconds"]}
    assert {"sentence-transformers", "transformers, one by one", "ours, fp32"} <= ways
    assert all(seconds > 0 for seconds in found["threads"]["1"]["seconds"].values())
    assert found["jobs"]["1 against 50, short"]["pairs"] == 50
    assert found["drift"]["largest"] <= 0.05
    assert found["start"]["megabytes"] > 50


def test_a_part_that_nobody_measures_is_refused():
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("bench", "kettle")


def test_every_round_runs_every_way_and_the_median_counts(monkeypatch):
    ran, ticks = [], iter(np.cumsum([0, 1, 0, 2, 0, 9, 0, 3, 0, 5, 0, 4]).tolist())
    monkeypatch.setattr(scorer.time, "perf_counter", lambda: next(ticks))
    ways = {"one": lambda pairs: ran.append("one"), "other": lambda pairs: ran.append("other")}
    jobs = [scorer.Job("job", [Pair("a", "b")], tokens=5, flop=1.0)]

    spent = scorer.timed(ways, jobs, 3, lambda: None)

    assert ran == ["one", "other"] * 4  # once to warm up
    assert spent == {("one", "job"): 5, ("other", "job"): 3}
