"""A real network made worse on purpose is measured on judged pairs and stopped at the gates."""

import json
import shutil
from collections import Counter

import pytest
import torch
from django.utils import timezone
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from dedup import evaluating, feedback, gates, promoting, releases
from dedup.evaluating import Subject
from dedup.ml.artifact import MANIFEST, hash_files
from dedup.ml.biencoder import BiEncoder
from dedup.ml.building import golden_pairs
from dedup.ml.calibration import Calibration
from dedup.ml.clusters import shortlisted
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.pairs import Pair
from tests.factories import QuestionFactory

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

PRODUCTS = {  # of several lines of business each, so that there are enough groups of questions
    "things": ("printer_maker", "robot_vacuum", "fitness_watch", "e_reader"),
    "homes": ("cooking", "gardening", "pets", "home_repair"),
}
NEAREST = 2  # pairs of each question
HURT = "homes"
NOW = timezone.now()


@pytest.fixture(scope="module")
def judged_pairs():
    """Pairs as shortlists deliver them, labelled by their writers, of two products."""
    bi = BiEncoder(shipped() / "bi-encoder")
    lines = [(product, line) for product, lines in PRODUCTS.items() for line in lines]
    return [
        label
        for number, (product, line) in enumerate(lines)
        for label in labels(shortlisted([line], bi.embed, NEAREST).pairs, product, number)
    ]


def shipped():
    return releases.folder_named("minilm-l6-2")


def labels(rows, product, number):
    """What people would have said; texts have ids, so that pairs of one text hang together."""
    ids = {}
    for row in rows:
        ends = [
            ids.setdefault(text, 10_000 * number + len(ids)) for text in (row.first, row.second)
        ]
        yield feedback.Label(
            older_id=min(ends), newer_id=max(ends), pair=Pair(row.first, row.second), cosine=None,
            logit=None, label=row.label, weight=1.0, share=1.0, lane="flagged", release="",
            probability=None, by=(1,), said_at=NOW, first_said_at=NOW, part="hold",
            segments={"product": product},
        )  # fmt: skip


def write_worse(folder, hurt):
    """A whole release: the one that ships, with its cross-encoder's weights changed by `hurt`."""
    shutil.copytree(shipped(), folder)
    file = folder / "cross-encoder" / "model.safetensors"
    state = load_file(file)
    hurt(state)
    save_file(state, file, metadata={"format": "pt"})
    raw = json.loads((folder / MANIFEST).read_text())
    calibration = Calibration(**raw["calibration"]["coefficients"])
    bi, cross = BiEncoder(folder / "bi-encoder"), CrossEncoder(folder / "cross-encoder")
    raw |= {"name": folder.name, "golden": golden_pairs(bi, cross, calibration)}
    raw["files"] = hash_files(folder)
    (folder / MANIFEST).write_text(json.dumps(raw))
    return folder


def words_of_one_product_mixed_up(judged_pairs):
    """Embeddings of words that only texts of one product have change places."""
    tokenizer = AutoTokenizer.from_pretrained(shipped() / "cross-encoder")
    counted = {is_hurt: Counter() for is_hurt in (True, False)}
    for label in judged_pairs:
        read = tokenizer([label.pair.older, label.pair.newer])["input_ids"]
        counted[label.segments["product"] == HURT].update(one for row in read for one in row)
    own = sorted(set(counted[True]) - set(counted[False]))

    def hurt(state):
        name = "bert.embeddings.word_embeddings.weight"
        changed = state[name].clone()
        changed[own] = state[name][own[1:] + own[:1]]
        state[name] = changed

    return hurt


@pytest.fixture
def measured(judged_pairs, tmp_path, settings, monkeypatch):
    """Add a release that is worse by `hurt`, and measure it beside the one that ships."""
    settings.DEDUP_RELEASES_FOLDER, settings.LOCAL_FOLDER = str(tmp_path), tmp_path / "local"
    settings.DEDUP_THREADS = 1
    monkeypatch.setattr(feedback, "labels", lambda: judged_pairs)
    QuestionFactory.create_batch(30)  # what speed is measured on
    active = releases.activate(release=releases.add("minilm-l6-2"))

    def measure(hurt):
        worse = releases.add(write_worse(tmp_path / "worse", hurt).name)
        report = evaluating.measure(
            Subject.of(worse), against=Subject.of(active), progress=lambda *_: None, now=NOW
        )
        return active, worse, report

    return measure


def shut_of(worse, by):
    with pytest.raises(promoting.GatesShut) as refused:
        promoting.promote(release=worse, by=by)
    return {gate.name for gate in refused.value.gates if gate.state == gates.SHUT}


def noise(state):
    """Every product of the network a little off."""
    torch.manual_seed(1)
    for name, weight in state.items():
        if name.endswith("dense.weight"):
            state[name] = weight + 0.5 * weight.float().std() * torch.randn_like(weight)


def test_a_release_that_is_worse_all_over_is_stopped(measured, admin):
    active, worse, report = measured(noise)

    assert "overall" in shut_of(worse, admin)
    assert report.figures["own"]["leads"]["average_precision"]["high"] < 0
    assert releases.active() == active


def test_a_release_that_is_worse_in_one_product_is_stopped_for_that_one(
    measured, admin, judged_pairs
):
    active, worse, report = measured(words_of_one_product_mixed_up(judged_pairs))

    leads = {
        row["value"]: row["leads"]["average_precision"]
        for row in report.figures["own"]["segments"]["product"]
    }
    assert leads[HURT]["high"] < 0 == leads["things"]["value"]
    shut = {gate.name: gate.found for gate in promoting.judged(worse) if gate.state == gates.SHUT}
    assert HURT in shut["segments"]
    assert "things" not in shut["segments"]
    with pytest.raises(promoting.GatesShut):
        promoting.promote(release=worse, by=admin)
    assert releases.active() == active
