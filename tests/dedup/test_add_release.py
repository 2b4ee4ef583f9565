import json
from io import StringIO

import pytest
import torch
from django.core.management import CommandError, call_command
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from dedup.ml import adopting
from dedup.ml.artifact import ArtifactRefused, hash_files, verify
from dedup.ml.clusters import Shortlisted
from dedup.ml.data import Labelled
from dedup.ml.pairs import Pair
from dedup.ml.release import open_release
from dedup.models import Release
from tests.dedup.ml.networks import WORDS, write_base, write_tokenizer

pytestmark = pytest.mark.django_db

SAME = ("how do i open the door", "open the door how")
OTHER = ("how do i open the door", "pay the bill in my shop")


@pytest.fixture(autouse=True)
def artifacts(tmp_path, settings, monkeypatch):
    """A folder of releases with one, whose bi-encoder is tiny; few shortlisted pairs."""
    written = Shortlisted(
        [Labelled(*SAME, 1.0), *[Labelled(*OTHER, 0.0)] * 9], ["", *["action"] * 9]
    )
    for name in ("shortlisted", "portal_shortlisted"):
        monkeypatch.setattr(adopting, name, lambda *_: written)
    monkeypatch.setattr("dedup.ml.measuring.shortlisted", lambda *_: written)
    settings.DEDUP_ARTIFACTS = tmp_path / "artifacts"
    settings.DEDUP_RELEASE = "before-1"
    before = settings.DEDUP_ARTIFACTS / "before-1"
    for part in ("bi-encoder", "cross-encoder"):
        write_base(before / part)
    raw = dict.fromkeys(("created_at", "base", "recipe", "data", "metrics"), "") | {
        "name": "before-1", "languages": ["en"], "licences": {}, "golden": [],
        "calibration": {"coefficients": dict.fromkeys(("bias", "by_logit", "by_cosine"), 1.0)},
        "thresholds": {n: {"probability": 0.5} for n in ("flag", "suggest", "sure")},
    }  # fmt: skip
    raw["calibration"]["coefficients"]["prior"] = 0.5
    raw["files"] = hash_files(before)
    (before / "manifest.json").write_text(json.dumps(raw))
    return settings.DEDUP_ARTIFACTS


def checkpoint(folder, network):
    network.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def distilbert(folder, labels=1):
    torch.manual_seed(2)
    shape = {"vocab_size": len(WORDS), "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}
    config = DistilBertConfig(**shape, max_position_embeddings=64, num_labels=labels)
    return checkpoint(folder, DistilBertForSequenceClassification(config))


def relu_bert(folder):
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, num_labels=1, hidden_act="relu",
    )  # fmt: skip
    return checkpoint(folder, BertForSequenceClassification(config))


def labels(folder, count):
    rows = [
        {"q1": a, "q2": b, "label": label}
        for (a, b), label in ([(SAME, 1), (OTHER, 0)] * count)[:count]
    ]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "labels.jsonl"


def add(*given):
    out = StringIO()
    call_command("add_release", *map(str, given), stdout=out)
    return out.getvalue()


@pytest.mark.parametrize(
    "make", [write_base, distilbert, relu_bert], ids=["BERT", "DistilBERT", "BERT with ReLU"]
)
def test_a_checkpoint_of_any_kind_becomes_a_release_that_proves_itself(make, tmp_path, artifacts):
    said = add(make(tmp_path / "theirs"), "--labels", labels(tmp_path, 120))

    scorer = open_release(artifacts / "theirs")
    pairs = [Pair(*SAME), Pair(*OTHER), Pair("new car", "old car in the shop 1 2 3")]
    assert scorer.cross.scores(pairs) == pytest.approx(
        scorer.cross.reference_scores(pairs), abs=0.05
    )
    assert adopting.OWN in said
    assert not Release.objects.get(name="theirs").is_active
    assert "trained by others" in (artifacts / "theirs" / "README.md").read_text()


def test_calibration_and_thresholds_are_of_the_labels_given(tmp_path, artifacts):
    add(write_base(tmp_path / "theirs"), "--labels", labels(tmp_path, 120))

    raw = verify(artifacts / "theirs").raw

    assert raw["calibration"]["rows"] == 60
    assert raw["calibration"]["coefficients"]["prior"] == pytest.approx(0.5, abs=0.2)
    assert raw["thresholds"]["flag"]["chosen"]["flagged"] > 0


@pytest.mark.parametrize("given", [[], ["--labels"]], ids=["no reviews", "few labels"])
def test_too_few_labels_are_said_and_questions_of_our_own_stand_in(given, tmp_path, artifacts):
    file = [labels(tmp_path, 30)] if given else []

    said = add(write_base(tmp_path / "theirs"), *given, *file)

    assert "too few labels" in said
    assert verify(artifacts / "theirs").raw["calibration"]["rows"] == 20


def test_a_network_with_two_logits_is_refused_in_words_and_leaves_nothing(tmp_path, artifacts):
    with pytest.raises(CommandError, match="2 logits"):
        add(distilbert(tmp_path / "theirs", labels=2))

    assert [folder.name for folder in artifacts.iterdir()] == ["before-1"]
    assert not Release.objects.exists()


def test_a_pickle_is_refused(tmp_path):
    theirs = write_base(tmp_path / "theirs")
    network = BertForSequenceClassification.from_pretrained(theirs)
    (theirs / "model.safetensors").unlink()
    torch.save(network.state_dict(), theirs / "pytorch_model.bin")

    with pytest.raises(CommandError, match="safetensors"):
        add(theirs)


def test_a_name_that_is_taken_is_refused_and_another_can_be_given(tmp_path, artifacts):
    theirs = write_base(tmp_path / "before-1")

    with pytest.raises(CommandError, match="already"):
        add(theirs)
    add(theirs, "--name", "other-2")

    assert verify(artifacts / "other-2").raw["name"] == "other-2"


def test_a_line_that_is_no_label_is_named(tmp_path):
    file = labels(tmp_path, 2)
    file.write_text(file.read_text() + '{"q1": "a", "q2": "b", "label": 2}\n')

    with pytest.raises(CommandError, match="line 3"):
        add(write_base(tmp_path / "theirs"), "--labels", file)


def test_a_tampered_release_lends_no_bi_encoder(tmp_path, artifacts):
    (artifacts / "before-1" / "bi-encoder" / "config.json").write_text("{}")

    with pytest.raises(CommandError, match="sha256"):
        add(write_base(tmp_path / "theirs"))

    with pytest.raises(ArtifactRefused):
        verify(artifacts / "theirs")
