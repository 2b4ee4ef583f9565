from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import dedup.ml
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.pairs import Pair
from tests.dedup.ml.networks import WORDS, write_base

SHIPPED = sorted(Path(dedup.ml.__file__).parent.glob("artifacts/*/cross-encoder"))
TEXT = st.lists(st.sampled_from(WORDS[4:]), min_size=1, max_size=70).map(" ".join)
PAIRS = [
    Pair("How do I reset my password?", "I forgot my password, how can I get a new one?"),
    Pair("Why was I charged twice this month?", "Can I export my invoices as a spreadsheet?"),
    Pair("The app closes when I upload a photo. " * 30, "App crash on upload " * 20),
    Pair("pay", "pay"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    cross = CrossEncoder(write_base(tmp_path_factory.mktemp("cross")), torch.float32)
    cross.max_tokens = 60
    return cross


@settings(deadline=None, max_examples=150)
@given(TEXT, TEXT)
def test_ids_kept_per_question_are_those_that_the_tokenizer_gives_for_the_pair(small, one, other):
    (ids,), (types,) = small.encode([Pair(one, other)])

    whole = small.tokenizer(*sorted([one, other]), truncation=True, max_length=60)
    assert ids == whole["input_ids"]
    assert types == whole["token_type_ids"]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=6))
def test_scores_are_the_references_for_every_mix_of_lengths(small, texts):
    pairs = [Pair(*both) for both in texts]

    np.testing.assert_allclose(small.scores(pairs), small.reference_scores(pairs), atol=1e-5)


@given(TEXT, TEXT)
@settings(deadline=None, max_examples=30)
def test_the_order_of_a_pair_does_not_matter(small, one, other):
    there, back = small.scores([Pair(one, other), Pair(other, one)])

    assert there == back


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_the_shipped_network_scores_alike_packed_and_plain(folder):
    cross = CrossEncoder(folder)

    np.testing.assert_allclose(cross.scores(PAIRS), cross.reference_scores(PAIRS), atol=0.05)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_the_shipped_folder_loads_in_plain_transformers_with_the_same_scores(folder):
    network = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ordered = [sorted([pair.older, pair.newer]) for pair in PAIRS]
    batch = tokenizer(
        [one for one, _ in ordered], [other for _, other in ordered],
        padding=True, truncation=True, return_tensors="pt",
    )  # fmt: skip

    with torch.inference_mode():
        plain = network.eval()(**batch).logits[:, 0].numpy()

    np.testing.assert_allclose(CrossEncoder(folder).scores(PAIRS), plain, atol=0.05)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_the_shipped_folder_loads_in_sentence_transformers_with_the_same_scores(folder):
    library = pytest.importorskip("sentence_transformers")
    usual = library.CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
    ordered = [tuple(sorted([pair.older, pair.newer])) for pair in PAIRS]

    found = usual.predict(ordered, show_progress_bar=False)

    np.testing.assert_allclose(CrossEncoder(folder).scores(PAIRS), found, atol=0.05)
