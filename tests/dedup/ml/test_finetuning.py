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
from dedup.ml.finetuning import NOTE, START, Plan, Taught, finetune, learn_to_compare
from dedup.ml.fitting import KEPT
from dedup.ml.pairs import Pair
from tests.dedup.ml.networks import write_base

THINGS = ["door", "window", "car", "shop", "bill"]
PLAN = Plan(epochs=8, batch=4, rate=1e-2, replay_weight=1.0, patience=6, pieces=1)


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


def test_without_a_label_it_learns_what_the_cosine_says_and_corrects_nothing(
    bi, tmp_path, monkeypatch
):
    words = [*THINGS, "red", "blue", "open", "close"]
    pairs = [Pair(f"my {a}", f"{b} {c}") for a in words for b in words for c in words]
    plan = Plan(rate=1e-2)
    zero = learn_to_compare(bi=bi, pairs=pairs[:99], out=tmp_path / "zero", plan=plan)
    assert not CrossEncoder(zero).scores(pairs).any()

    def say(pairs, reader):
        return np.asarray([3.0 if "red" in pair.newer else -3.0 for pair in pairs])

    monkeypatch.setattr(fitting, "offsets_of", say)
    monkeypatch.setattr(fitting, "says_zero", lambda network: None)  # to see what it learned
    out = learn_to_compare(bi=bi, pairs=pairs[::2] * 12, out=tmp_path / "out", plan=plan)
    unseen = pairs[1::2]
    assert np.corrcoef(CrossEncoder(out).scores(unseen), say(unseen, None))[0, 1] > 0.8


def test_a_fresh_network_learns_to_compare_first_and_once(bi, tmp_path, monkeypatch):
    made(bi, tmp_path / "out", replay=replayed())
    assert (tmp_path / "out" / START / NOTE).exists()

    (tmp_path / "out" / NOTE).unlink()
    courses = []
    monkeypatch.setattr(
        fitting, "descend",
        lambda network, *_, **__: courses.append(network) or fitting.Descent(),
    )  # fmt: skip
    made(bi, tmp_path / "out", replay=replayed())
    assert len(courses) == 1


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


def test_what_a_calibration_mends_is_not_held_against_a_network():
    class Network:
        def __init__(self, slope, shift):
            self.slope, self.shift = slope, shift

    rng = np.random.default_rng(5)
    known = rng.normal(size=80)
    labels = (rng.random(80) < 1 / (1 + np.exp(-3 * known))).astype(float)
    examples = [fitting.Example([1], 0.0, label) for label in labels]
    rows = {id(example.ids): float(z) for example, z in zip(examples, known, strict=True)}

    def logits_of(network, tokenizer, ids):
        return torch.tensor([network.slope * rows[id(one)] + network.shift for one in ids])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "logits_of", logits_of)
        judge = finetuning._judge(examples, None)
        assert judge(Network(0.3, -4.0)) == pytest.approx(judge(Network(3.0, 0.0)), abs=2e-3)
        assert judge(Network(3.0, 0.0)) < judge(Network(0.0, 0.0)) - 0.1


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
