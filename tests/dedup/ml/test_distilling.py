import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binom

from dedup.ml import distilling
from dedup.ml.calibration import Calibration
from dedup.ml.clusters import Shortlisted, Written
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.data import Labelled
from dedup.ml.distilling import READ, Plan, choose_floor, distil, gathered, held_out, kept_layers
from dedup.ml.fitting import KEPT
from dedup.ml.measuring import Measured
from dedup.ml.pairs import Pair
from dedup.ml.refitting import Asked
from dedup.ml.release import open_release
from tests.dedup.ml.networks import WORDS, write_data, write_parent

PLAN = Plan(layers=1, epochs=12, batch=16, rate=1e-2)
WANTED, AT = {"flag": 0.6, "suggest": 0.2, "sure": 0.8}, {"flag": 0.5, "suggest": 0.1, "sure": 0.9}


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    """A release of three layers, whose logits differ enough to be learned."""
    monkeypatch.setattr(distilling, "FEWEST", 50)
    found = open_release(write_parent(tmp_path / "teacher-1", layers=3))
    with torch.no_grad():
        for module in found.cross.network.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight *= 15
    found.cross.packed = None  # it has the weights that were there before
    return found


@pytest.fixture
def pairs():
    rng = np.random.default_rng(2)
    words = WORDS[4:]

    def text():
        return " ".join(rng.choice(words, size=int(rng.integers(3, 7))).tolist())

    return [Pair(text(), text()) for _ in range(300)]


def test_a_student_comes_nearer_to_its_teacher_on_pairs_that_it_did_not_learn(
    teacher, pairs, tmp_path
):
    before = distil(
        teacher=teacher, pairs=pairs, out=tmp_path / "before",
        plan=Plan(layers=1, epochs=1, rate=1e-9, batch=16),
    )  # fmt: skip

    after = distil(teacher=teacher, pairs=pairs, out=tmp_path / "out", plan=PLAN)

    assert after.errors[-1] < 0.5 * before.errors[-1]
    assert (after.layers, after.pairs) == ([2], 300)
    student = CrossEncoder(after.folder)
    assert student.network.config.num_hidden_layers == 1
    assert not (after.folder / KEPT).exists()


def test_word_embeddings_stay_the_teachers(teacher, pairs, tmp_path):
    made = distil(teacher=teacher, pairs=pairs, out=tmp_path / "out", plan=PLAN)

    words = "bert.embeddings.word_embeddings.weight"
    kept = load_file(made.folder / "model.safetensors")[words]
    assert torch.equal(kept, teacher.cross.network.state_dict()[words].half())


def test_a_student_with_all_layers_begins_as_its_teacher(teacher, pairs, tmp_path):
    assert distilling.write_start(teacher.cross.network, 3, tmp_path / "same") == [0, 1, 2]
    teacher.cross.tokenizer.save_pretrained(tmp_path / "same")

    found = CrossEncoder(tmp_path / "same", torch.float32).reference_scores(pairs[:20])

    assert found == pytest.approx(teacher.cross.reference_scores(pairs[:20]), abs=1e-5)


def test_layers_are_kept_from_the_first_to_the_last():
    assert [kept_layers(6, count) for count in (1, 2, 3, 6)] == [
        [5], [0, 5], [0, 2, 5], [0, 1, 2, 3, 4, 5],
    ]  # fmt: skip
    for count in (0, 7):
        with pytest.raises(ValueError, match="1 to 6"):
            kept_layers(6, count)


def test_what_was_killed_goes_on_and_the_teacher_reads_nothing_twice(
    teacher, pairs, tmp_path, monkeypatch
):
    monkeypatch.setattr(distilling, "KEPT_EVERY", 0.0)
    seen = []

    def kill(done, total, step, left):
        seen.append(done)
        if step.startswith("training") and done == 60:
            raise KeyboardInterrupt

    given = {"teacher": teacher, "pairs": pairs, "out": tmp_path / "out", "plan": PLAN}
    with pytest.raises(KeyboardInterrupt):
        distil(**given, progress=kill)
    monkeypatch.setattr(teacher.cross, "scores", lambda pairs: pytest.fail("read again"))

    steps = []
    made = distil(**given, progress=lambda done, total, step, left: steps.append(done))

    whole = [done for done in steps if done]
    assert 55 <= whole[0] <= 61
    assert made.steps == whole[-1]
    assert distil(**given) == made


def test_what_the_teacher_said_of_other_pairs_is_not_taken(teacher, pairs, tmp_path):
    memory = tmp_path / READ
    first, _ = distilling.read_by(teacher, pairs[:100], memory, lambda *told: None)
    second, cosines = distilling.read_by(teacher, pairs[100:], memory, lambda *told: None)

    assert len(second) == len(cosines) == 200
    assert second == pytest.approx(teacher.cross.scores(pairs[100:]), abs=0.05)
    assert len(first) == 100


def test_too_few_pairs_teach_nothing(teacher, pairs, tmp_path):
    with pytest.raises(ValueError, match="too few"):
        distil(teacher=teacher, pairs=pairs[:49], out=tmp_path / "out", plan=PLAN)


def test_a_tenth_is_held_out_and_a_texts_pairs_stand_on_one_side(pairs):
    many = [Pair(f"lamp {n}", f"zebra {n} {m}") for n in range(500) for m in range(4)]

    is_held = held_out(many).reshape(500, 4)

    assert is_held.mean() == pytest.approx(0.1, abs=0.04)
    assert (is_held == is_held[:, :1]).all()
    turned = [Pair(p.newer, p.older) for p in many]
    assert (held_out(turned) == is_held.ravel()).all()


@pytest.mark.parametrize("count", [1, 298, 299, 1_000, 20_000, 300_000])
@pytest.mark.parametrize("most", [0.01, 0.05])
def test_as_many_may_be_lost_as_a_share_would_seldom_lose(count, most):
    k = distilling._most_lost(count, most)

    assert k < 0 or binom.cdf(k, count, most) <= 0.05
    assert binom.cdf(k + 1, count, most) > 0.05


def test_below_the_floor_lies_next_to_nothing_of_what_the_teacher_flags():
    rng = np.random.default_rng(3)
    teacher = rng.uniform(size=20_000) ** 4
    student = np.clip(teacher + rng.normal(size=20_000) * 0.05, 0, 1)

    found = choose_floor(student, teacher, 0.3)

    assert 0 < found["floor"] <= 0.3
    assert found["lost"] < found["most_lost"] == 0.01
    assert found["settled"] > 0.4
    assert found["lost"] == (student[teacher >= 0.3] < found["floor"]).mean()


def test_a_floor_is_never_above_the_threshold_and_few_flagged_pairs_give_none():
    teacher = np.full(400, 0.5)

    assert choose_floor(np.full(400, 0.9), teacher, 0.3)["floor"] == 0.3
    assert choose_floor(np.full(298, 0.9), teacher[:298], 0.3)["floor"] == 0.0
    assert choose_floor(np.zeros(400), teacher, 0.6)["floor"] == 0.0


def test_a_student_hears_its_logit_where_and_as_much_as_its_teacher():
    rng = np.random.default_rng(4)
    logits, cosines = rng.normal(size=4_000), rng.uniform(size=4_000)
    teacher = Calibration(-3.0, 1.2, 4.0, 0.1, low=0.4, high=0.7)
    chances = Calibration(-1.0, 0.6, 2.0, low=0.4, high=0.7).probabilities(logits, cosines)
    labels = (rng.uniform(size=4_000) < chances).astype(float)

    found = distilling.calibrated_like(teacher, Measured([], logits, cosines, labels))

    assert (found.low, found.high) == (0.4, 0.7)
    assert found.by_logit / found.by_cosine == pytest.approx(0.3)
    assert (found.bias, found.by_cosine) == pytest.approx((-1.0, 2.0), abs=0.3)


def test_gathered_pairs_are_heard_each_once_and_the_same_for_a_seed(teacher, tmp_path, monkeypatch):
    short = [Written(f"pay my {thing}", "", n) for n, thing in enumerate(WORDS[10:25])]
    monkeypatch.setattr(distilling, "read_clusters", lambda names: short)
    data = write_data(tmp_path / "data")

    found = gathered(data, teacher, 240, seed=1)

    assert found == gathered(data, teacher, 240, seed=1)
    assert 20 < len(found) <= 240
    assert len({frozenset((p.older, p.newer)) for p in found}) == len(found)
    cosines = distilling.pair_cosines(teacher.embed, found)
    assert teacher.calibration.hears(cosines).all()


@pytest.mark.parametrize("labels", [0, 80])
def test_a_student_becomes_a_release_that_proves_itself_and_names_its_teacher(
    teacher, pairs, tmp_path, monkeypatch, labels
):
    written = Shortlisted(
        [Labelled(p.older, p.newer, float(n % 2)) for n, p in enumerate(pairs[:60])], [""] * 60
    )
    for module in ("measuring", "adopting"):
        monkeypatch.setattr(f"dedup.ml.{module}.shortlisted", lambda *_: written)
    monkeypatch.setattr("dedup.ml.adopting.portal_shortlisted", lambda *_: written)
    monkeypatch.setattr("dedup.ml.refitting.calibrate", lambda fitted, before: before)
    made = distil(teacher=teacher, pairs=pairs, out=tmp_path / "network", plan=PLAN)
    tune = [Asked(p.older, p.newer, float(n % 2)) for n, p in enumerate(pairs[:labels])]

    raw = distilling.release_of(
        made, pairs, teacher, tmp_path / "teacher-1", tmp_path / "student-1",
        at=AT, wanted=WANTED, tune=tune, hold=tune,
    )  # fmt: skip

    opened = open_release(tmp_path / "student-1")
    assert opened.manifest.raw == raw
    assert raw["teacher"] == {"name": "teacher-1", "fingerprint": teacher.fingerprint}
    assert opened.embedding_fingerprint == teacher.embedding_fingerprint
    assert raw["cascade"]["rows"] == held_out(pairs).sum()
    assert raw["cascade"]["threshold"] == 0.5
    card = (tmp_path / "student-1" / "README.md").read_text()
    assert "A student of teacher-1" in card
    assert ("held verdicts" in card) == bool(labels)
