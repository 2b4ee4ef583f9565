import random

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from dedup.ml import fitting, training
from dedup.ml.fitting import KEPT, Course
from dedup.ml.mixture import Mixture
from dedup.ml.pairs import Pair
from dedup.ml.training import Recipe, Stage, train
from tests.dedup.ml.networks import write_base, write_data

STAGE = Stage(
    "only", Mixture(quora=24, mates=8, strangers=30), batch=4, rate=1e-2, stranger_weight=1.0
)


class PulledPlug(Exception):
    pass


def weights(folder):
    return load_file(folder / "model.safetensors")


def trained(tmp_path, name, *stages, **options):
    data, base = write_data(tmp_path / "data"), write_base(tmp_path / "base")
    recipe = Recipe(1, stages, (stages[-1].name,))
    return train(data, base, tmp_path / name, recipe, **options)


def test_training_that_was_stopped_ends_where_it_would_have_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "KEPT_EVERY", 0.0)
    whole = weights(trained(tmp_path, "whole", STAGE))
    steps, real = [], fitting.loss_of

    def stop_at_the_tenth(*given):
        steps.append(1)
        if len(steps) == 10:
            raise PulledPlug
        return real(*given)

    monkeypatch.setattr(fitting, "loss_of", stop_at_the_tenth)
    with pytest.raises(PulledPlug):
        trained(tmp_path, "parts", STAGE)
    assert (tmp_path / "parts" / "1-only" / KEPT).exists()
    parts = weights(trained(tmp_path, "parts", STAGE))

    assert len(steps) < 2 * 16
    assert not (tmp_path / "parts" / "1-only" / KEPT).exists()
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight)


def test_a_step_of_any_lengths_reads_each_pair_once_in_pieces_of_like_length():
    lengths = [5, 90] * 20
    course = Course(batch=8, pieces=2)

    found = list(fitting.steps(lengths, course, random.Random(1)))

    assert sorted(i for step in found for piece in step for i in piece) == list(range(40))
    assert {len(step) for step in found} == {2}
    assert sum(len({lengths[i] for piece in step for i in piece}) == 2 for step in found) > 3
    for shorter, longer in found:
        assert max(lengths[i] for i in shorter) <= min(lengths[i] for i in longer)


def test_a_step_in_pieces_goes_where_it_would_go_whole(tmp_path):
    base = write_base(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    pairs = [Pair("open the door", "open my door"), Pair("red car", "blue bill"),
             Pair("close", "close the shop"), Pair("open", "close my window")]  # fmt: skip
    ids = fitting.encode(pairs, tokenizer, 32)
    examples = [fitting.Example(one, 0.3, float(n % 2)) for n, one in enumerate(ids)]
    ends = []
    for pieces in ([examples], [examples[:3], examples[3:]]):
        network = fitting.start_network(base, 1, is_fresh=True)
        optimizer = torch.optim.SGD(network.parameters(), lr=2.0)
        losses = [fitting._step(network, tokenizer, pieces, optimizer, Course()) for _ in range(3)]
        ends.append((losses, network.classifier.weight.detach().clone()))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-3)
    torch.testing.assert_close(ends[0][1], ends[1][1], rtol=2e-2, atol=1e-3)
    assert ends[0][1].abs().max() > 0.01  # it went somewhere


def descended():
    """A network, its optimizer after one step, and how far it is."""
    network = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    best = {name: weight + 1 for name, weight in network.state_dict().items()}
    return network, optimizer, fitting.Descent(7, 1.5, [0.5, 0.25], best)


def assert_alike(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key])
    else:
        assert one == other


def test_a_checkpoint_gives_back_weights_optimizer_and_how_far_it_was(tmp_path):
    network, optimizer, at = descended()
    fitting._keep(tmp_path / KEPT, network, optimizer, at)
    fresh, again, _ = descended()

    found = fitting._resume(tmp_path / KEPT, fresh, again)

    assert (found.step, found.spent, found.judged) == (7, 1.5, [0.5, 0.25])
    assert_alike(found.best, at.best)
    assert_alike(fresh.state_dict(), network.state_dict())
    assert_alike(again.state_dict()["state"], optimizer.state_dict()["state"])
    assert load_file(tmp_path / KEPT)  # safetensors: what is read cannot run anything


def test_a_checkpoint_without_a_best_epoch_has_none_afterwards(tmp_path):
    network, optimizer, at = descended()
    at.best = None
    fitting._keep(tmp_path / KEPT, network, optimizer, at)

    assert fitting._resume(tmp_path / KEPT, network, optimizer).best is None


def test_a_kill_while_a_checkpoint_is_written_leaves_the_last_one(tmp_path, monkeypatch):
    network, optimizer, at = descended()
    fitting._keep(tmp_path / KEPT, network, optimizer, at)

    def die_half_way(_tensors, file, **_):
        file.write_bytes(b"half")
        raise PulledPlug

    monkeypatch.setattr(fitting, "save_file", die_half_way)
    at.step = 9
    with pytest.raises(PulledPlug):
        fitting._keep(tmp_path / KEPT, network, optimizer, at)

    assert fitting._resume(tmp_path / KEPT, network, optimizer).step == 7


def test_a_checkpoint_that_cannot_be_read_lets_the_training_begin_anew(tmp_path):
    network, optimizer, _ = descended()
    (tmp_path / KEPT).write_bytes(b"no tensors")

    assert fitting._resume(tmp_path / KEPT, network, optimizer).step == 0


def test_a_finished_stage_is_not_run_again(tmp_path, monkeypatch):
    trained(tmp_path, "out", STAGE)
    monkeypatch.setattr(training, "fit", lambda *given: pytest.fail("it was finished"))

    trained(tmp_path, "out", STAGE)


def test_a_stage_begins_at_the_mean_of_those_that_it_names(tmp_path):
    short = {"mixture": Mixture(quora=8), "batch": 4, "rate": 1e-2}
    stages = [Stage("one", **short), Stage("two", **short, after=("one",))]
    stages.append(Stage("three", **short, after=("one", "two"), minutes=1e-9))
    out = tmp_path / "out"
    trained(tmp_path, "out", *stages)

    one, two, three = (weights(out / name) for name in ("1-one", "2-two", "3-three"))

    for name, weight in three.items():
        torch.testing.assert_close(weight, (one[name] + two[name]) / 2)


def test_a_taught_stage_needs_a_teacher(tmp_path):
    with pytest.raises(ValueError, match="teacher"):
        trained(tmp_path, "out", Stage("taught", Mixture(quora=4), is_taught=True))


def test_strangers_are_corrected_as_the_teacher_would_have_it(tmp_path):
    teacher = write_base(tmp_path / "teacher", seed=9)
    stage = Stage("taught", Mixture(strangers=40), batch=4, rate=1e-3, is_taught=True)
    costs = []
    real = fitting.loss_of

    def noted(network, tokenizer, examples, given):
        costs.append([e.wanted for e in examples])
        return real(network, tokenizer, examples, given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "loss_of", noted)
        trained(tmp_path, "out", stage, teacher=teacher)

    wanted = [w for row in costs for w in row]
    assert max(wanted) > 0 > min(wanted)
    assert sum(wanted) == pytest.approx(0, abs=1e-3 * len(wanted))


def test_a_machine_that_slept_has_not_trained(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000_000, 100_000))  # each look at it a day later
    monkeypatch.setattr(fitting.time, "monotonic", lambda: float(next(clock)))

    trained(tmp_path, "out", Stage("only", Mixture(quora=24), batch=4, minutes=60.0))

    note = (tmp_path / "out" / "1-only" / "stage.json").read_text()
    assert '"steps": 6' in note
