import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder as PublicCrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import dedup.ml
from dedup.ml.artifact import ArtifactRefused, file_hash, verify
from dedup.ml.pairs import Pair
from dedup.ml.release import open_release
from dedup.ml.score import score_lines

FOLDER = Path(dedup.ml.__file__).parent / "artifacts" / "minilm-l6-2"


@pytest.fixture(scope="module")
def scorer():
    return open_release(FOLDER)


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(FOLDER, tmp_path / "release"))


@pytest.fixture(scope="module")
def golden(scorer):
    return scorer.manifest.raw["golden"]


def pairs_of(golden):
    return [Pair(g["older"], g["newer"]) for g in golden]


def resign(folder, name):
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    raw["files"][name] = file_hash(folder / name)
    path.write_text(json.dumps(raw))


def test_twenty_golden_pairs_come_with_it(golden):
    assert len(golden) == 20


def test_vectors_have_unit_length(scorer):
    vectors = scorer.embed(["How do I pay?", "short", "a longer text " * 40])
    assert vectors.shape == (3, scorer.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_nothing_in_nothing_out(scorer):
    assert scorer.judge([], []) == []
    assert scorer.embed([]).shape == (0, scorer.dimensions)


def test_the_order_of_a_pair_does_not_matter(scorer, golden):
    there = scorer.judge(pairs_of(golden), [0.5] * 20)
    back = scorer.judge([Pair(p.newer, p.older) for p in pairs_of(golden)], [0.5] * 20)
    assert there == back


def test_the_fast_path_agrees_with_the_reference(scorer, golden):
    pairs = pairs_of(golden) + [Pair("long " * n, "other " * n) for n in (1, 30, 200)]
    assert scorer.cross.scores(pairs) == pytest.approx(
        scorer.cross.reference_scores(pairs), abs=0.05
    )


def test_unequal_lengths_are_refused(scorer):
    with pytest.raises(ValueError, match="1 pairs and 0 cosines"):
        scorer.judge([Pair("a", "b")], [])


def test_plain_transformers_gives_the_documented_scores(golden):
    folder = FOLDER / "cross-encoder"
    network = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    ordered = [sorted([g["older"], g["newer"]]) for g in golden]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([o[0] for o in ordered], [o[1] for o in ordered],
                      padding=True, return_tensors="pt")  # fmt: skip
    with torch.inference_mode():
        logits = network(**batch).logits[:, 0].tolist()
    assert logits == pytest.approx([g["logit"] for g in golden], abs=0.05)


def test_sentence_transformers_gives_the_documented_scores(golden):
    public = PublicCrossEncoder(str(FOLDER / "cross-encoder"), device="cpu")
    found = public.predict([sorted([g["older"], g["newer"]]) for g in golden],
                           activation_fn=torch.nn.Identity())  # fmt: skip
    assert list(found) == pytest.approx([g["logit"] for g in golden], abs=0.05)


def test_lines_are_scored_by_the_release_itself(scorer, golden):
    line = json.dumps({"q1": golden[0]["older"], "q2": golden[0]["newer"], "body1": None})
    (found,) = score_lines(scorer, [line])
    assert json.loads(found)["probability"] == pytest.approx(golden[0]["probability"], abs=0.02)


def test_a_changed_file_is_refused(copy):
    (copy / "README.md").write_text("other")
    with pytest.raises(ArtifactRefused, match="another sha256"):
        open_release(copy)


def test_a_truncated_file_is_refused(copy):
    path = copy / "cross-encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactRefused, match="another sha256"):
        open_release(copy)


def test_truncated_weights_are_refused_even_with_the_right_hash(copy):
    path = copy / "cross-encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    resign(copy, "cross-encoder/model.safetensors")
    with pytest.raises(ArtifactRefused, match="cannot be loaded"):
        open_release(copy)


@pytest.mark.parametrize("name", ["x.pkl", "pytorch_model.bin", "modeling.py"])
def test_code_and_pickles_are_refused(copy, name):
    (copy / "cross-encoder" / name).write_text("x")
    with pytest.raises(ArtifactRefused, match="file type"):
        verify(copy)


def test_a_missing_file_is_refused(copy):
    (copy / "bi-encoder" / "config.json").unlink()
    with pytest.raises(ArtifactRefused, match="missing"):
        verify(copy)


def test_a_manifest_without_a_key_is_refused(copy):
    raw = json.loads((copy / "manifest.json").read_text())
    del raw["thresholds"]
    (copy / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(ArtifactRefused, match="lacks thresholds"):
        verify(copy)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ArtifactRefused):
        open_release(tmp_path / "none")


@pytest.mark.parametrize("part", ["cross-encoder", "bi-encoder"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(copy, part, bad):
    path = copy / part / "model.safetensors"
    weights = load_file(path)
    next(w for k, w in sorted(weights.items()) if "layer.3" in k).view(-1)[0] = bad
    save_file(weights, path, metadata={"format": "pt"})
    resign(copy, f"{part}/model.safetensors")
    with pytest.raises(ArtifactRefused):
        open_release(copy)


def test_another_golden_score_is_refused(copy):
    raw = json.loads((copy / "manifest.json").read_text())
    raw["golden"][3]["logit"] += 0.1
    (copy / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(ArtifactRefused, match="golden"):
        open_release(copy)


def test_at_even_odds_the_order_stays_and_what_is_unlikely_is_less_so(scorer, golden):
    pairs, cosines = pairs_of(golden), [g["cosine"] for g in golden]

    rare = [said.probability for said in scorer.judge(pairs, cosines)]
    even = [said.probability for said in scorer.at_even_odds().judge(pairs, cosines)]

    assert np.argsort(rare).tolist() == np.argsort(even).tolist()
    assert all(more > less for more, less in zip(even, rare, strict=True) if less < 0.5)


LOW = [-1.0, 0.0, 0.3, 0.42]  # at and below the cosine from which on the release hears the logit


def test_where_no_logit_can_matter_none_is_read_and_the_probability_is_the_same(scorer, golden):
    pairs, cosines = pairs_of(golden), [*LOW * 3, *[0.43, 0.6, 0.9, 1.0] * 2]

    quick = scorer.judge(pairs, cosines)
    whole = scorer.judge(pairs, cosines, reads_all=True)

    assert [said.probability for said in quick[:12]] == [said.probability for said in whole[:12]]
    assert [said.probability for said in quick[12:]] == pytest.approx(
        [said.probability for said in whole[12:]], abs=0.02
    )  # in bf16 a logit depends on its batch in the last place
    assert [said.settled_by for said in quick] == ["cosine"] * 12 + ["cross-encoder"] * 8
    assert [said.logit is None for said in quick] == [True] * 12 + [False] * 8
    assert not any(said.logit is None for said in whole)


def test_the_network_is_given_only_pairs_that_it_is_heard_of(scorer, golden, monkeypatch):
    given = []
    monkeypatch.setattr(scorer.cross, "scores", lambda pairs: given.extend(pairs) or np.ones(1))

    scorer.judge(pairs_of(golden)[:5], [*LOW, 0.5])

    assert given == pairs_of(golden)[4:5]


def test_a_cosine_that_is_no_number_is_a_failure(scorer, golden):
    with pytest.raises(FloatingPointError):
        scorer.judge(pairs_of(golden)[:1], [float("nan")])
