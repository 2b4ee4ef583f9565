import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dedup.ml import finetuning, fitting
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.finetuning import NOTE, Plan, Taught, finetune
from dedup.ml.fitting import KEPT
from dedup.ml.pairs import Pair
from tests.dedup.ml.networks import write_base

THINGS = ["door", "window", "car", "shop", "bill"]
PLAN = Plan(epochs=8, batch=4, rate=1e-2, replay_weight=1.0, patience=6)


def taught(count=40):
    """Two that open are the same, one that opens and one that closes are not."""
    made = []
    for n in range(count):
        one, other = THINGS[n % 5], THINGS[(n // 5) % 5]
        verb = "open" if n % 2 else "close"
        made.append(Taught(f"open the {one} {n % 3}", f"{verb} my {other}", float(n % 2)))
    return made


def replayed():
    return [Pair(f"red {a} in the shop", f"blue {b} 2") for a in THINGS for b in THINGS]


@pytest.fixture
def bi(tmp_path):
    return write_base(tmp_path / "base")


def made(bi, out, **changes):
    given = {"start": None, "taught": taught(), "tune": [], "replay": [], "plan": PLAN}
    return finetune(bi=bi, out=out, **{**given, **changes})


def test_it_learns_what_labels_say_and_the_cosine_does_not(bi, tmp_path):
    found = made(bi, tmp_path / "out")

    cross = CrossEncoder(found.folder)
    same = cross.scores([one.pair for one in taught() if one.label])
    others = cross.scores([one.pair for one in taught() if not one.label])
    assert same.mean() > others.mean() + 0.4
    assert found.steps == 80
    assert not (found.folder / KEPT).exists()


def test_pairs_that_nobody_judged_keep_what_the_network_said_of_them(bi, tmp_path):
    start = made(bi, tmp_path / "start").folder
    turned = [Taught(one.first, one.second, 1 - one.label) for one in taught()]
    before = CrossEncoder(start).scores(replayed())

    held = made(bi, tmp_path / "held", start=start, taught=turned, replay=replayed())
    free = made(bi, tmp_path / "free", start=start, taught=turned)

    moved_held = np.abs(CrossEncoder(held.folder).scores(replayed()) - before).mean()
    moved_free = np.abs(CrossEncoder(free.folder).scores(replayed()) - before).mean()
    assert moved_held < moved_free / 2


def test_a_label_that_counts_for_next_to_nothing_teaches_next_to_nothing(bi, tmp_path):
    def parted_with(weight):
        """How far apart the two kinds are, beside as many labels that say the opposite."""
        noise = [Taught(one.first, one.second, 1 - one.label, weight) for one in taught()]
        folder = made(bi, tmp_path / str(weight), taught=[*taught(), *noise]).folder
        logits = CrossEncoder(folder).scores([one.pair for one in taught()])
        return logits[1::2].mean() - logits[::2].mean()

    assert parted_with(1e-9) > parted_with(1.0) + 0.1


def test_labels_that_teach_the_wrong_thing_leave_the_network_where_it_was(bi, tmp_path):
    start = made(bi, tmp_path / "start").folder
    wrong = [Taught(one.first, one.second, 1 - one.label) for one in taught()]

    found = made(bi, tmp_path / "out", start=start, taught=wrong, tune=taught(60))

    assert found.way == 0
    for name, weight in load_file(start / "model.safetensors").items():
        torch.testing.assert_close(load_file(found.folder / "model.safetensors")[name], weight)


def test_it_stops_where_further_epochs_bring_nothing(bi, tmp_path):
    start = made(bi, tmp_path / "start").folder
    wrong = [Taught(one.first, one.second, 1 - one.label) for one in taught()]
    plan = Plan(epochs=50, batch=4, rate=1e-2, patience=2)

    found = made(bi, tmp_path / "out", start=start, taught=wrong, tune=taught(60), plan=plan)

    assert len(found.tune_losses) < 10


def test_a_few_labels_do_not_say_when_to_stop(bi, tmp_path):
    found = made(bi, tmp_path / "out", tune=taught(finetuning.FEWEST_JUDGES - 1))

    assert (found.tune_losses, found.way) == ([], 1.0)


def test_labels_of_one_kind_are_refused(bi, tmp_path):
    with pytest.raises(ValueError, match="duplicates and others"):
        made(bi, tmp_path / "out", taught=[one for one in taught() if one.label])


def test_what_is_finished_is_not_run_again(bi, tmp_path, monkeypatch):
    first = made(bi, tmp_path / "out")
    monkeypatch.setattr(fitting, "descend", lambda *_, **__: pytest.fail("it was finished"))

    assert made(bi, tmp_path / "out") == first


def test_it_says_how_far_it_is_and_ends_where_that_raises(bi, tmp_path):
    class Enough(Exception):
        pass

    said = []

    def tell(done, total, step, seconds_left):
        said.append((done, total, step))
        if done == 5:
            raise Enough

    with pytest.raises(Enough):
        made(bi, tmp_path / "out", progress=tell)

    assert said[-1][:2] == (5, 80)
    assert not (tmp_path / "out" / NOTE).exists()


KILLED = """
import sys, time
from pathlib import Path
from dedup.ml import finetuning
from tests.dedup.ml import test_finetuning as t
finetuning.KEPT_EVERY = 0.0
def tell(done, total, step, seconds_left):
    print(done, flush=True)
    time.sleep(float(sys.argv[3]))
t.made(Path(sys.argv[1]), Path(sys.argv[2]), tune=t.taught(60), progress=tell)
"""


def test_a_run_that_was_killed_ends_where_it_would_have_ended(bi, tmp_path):
    whole = made(bi, tmp_path / "whole", tune=taught(60))

    def begin(pause):
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, str(bi), str(tmp_path / "parts"), pause],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    for _ in range(2):
        child = begin("0.02")
        lines = iter(child.stdout.readline, "")
        steps = [int(line) for line, _ in zip(lines, range(15), strict=False)]
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert (tmp_path / "parts" / KEPT).exists()
        assert max(steps) < 80
    begun = time.monotonic()
    child = begin("0")
    assert child.wait(timeout=120) == 0, time.monotonic() - begun

    parts = load_file(tmp_path / "parts" / "model.safetensors")
    for name, weight in load_file(whole.folder / "model.safetensors").items():
        torch.testing.assert_close(parts[name], weight)
