import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel

from dedup.ml.packing import PackedBert, cut, fastest_dtype, product

TEXTS = st.lists(
    st.lists(st.integers(1, 49), min_size=1, max_size=20), min_size=1, max_size=12
).map(lambda texts: sorted(texts, key=len))


def small_bert():
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=20,
    )
    return BertModel(config).eval()


BERT = small_bert()
PACKED = PackedBert(BERT, torch.float32)


@settings(deadline=None, max_examples=50)
@given(TEXTS)
def test_a_packed_batch_says_what_each_text_says_alone(texts):
    types = [[i % 2 for i in range(len(text))] for text in texts]
    with torch.inference_mode():
        alone = [
            BERT(
                input_ids=torch.tensor([text]), token_type_ids=torch.tensor([kind])
            ).last_hidden_state[0, 0]
            for text, kind in zip(texts, types, strict=True)
        ]

    torch.testing.assert_close(
        PACKED.first_states(texts, types), torch.stack(alone), atol=1e-5, rtol=1e-5
    )


@settings(deadline=None, max_examples=50)
@given(TEXTS)
def test_the_mean_of_a_texts_tokens_is_what_the_text_gives_alone(texts):
    with torch.inference_mode():
        alone = [
            BERT(input_ids=torch.tensor([text])).last_hidden_state[0].mean(0) for text in texts
        ]

    torch.testing.assert_close(PACKED.mean_states(texts), torch.stack(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("gelu", [False, True])
def test_a_weight_laid_out_once_multiplies_like_the_weight_itself(dtype, rows, gelu):
    torch.manual_seed(rows)
    weight, bias, row = (torch.randn(*size) for size in ((48, 24), (48,), (rows, 24)))
    wanted = torch.nn.functional.linear(row, weight, bias)
    wanted = torch.nn.functional.gelu(wanted) if gelu else wanted

    with torch.inference_mode():
        made = product(weight.to(dtype), bias.to(dtype), gelu=gelu)(row.to(dtype))

    atol = 1e-4 if dtype == torch.float32 else 0.25
    torch.testing.assert_close(made.float(), wanted, atol=atol, rtol=0.02)


def test_a_processor_that_is_held_to_avx2_is_not_asked_to_multiply_bf16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for capability, chosen in (("AVX512", torch.bfloat16), ("AVX2", torch.float32)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        assert fastest_dtype() == chosen


def test_weights_are_used_as_they_are_where_they_cannot_be_laid_out(monkeypatch, caplog):
    def missing(*_):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", missing)
    weight, bias, row = torch.randn(6, 4), torch.randn(6), torch.randn(3, 4)

    made = product(weight, bias)(row)

    torch.testing.assert_close(made, torch.nn.functional.linear(row, weight, bias))
    assert "no such operation" in caplog.text


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 500))
def test_batches_hold_every_row_once_shortest_first_within_the_budget(lengths, budget):
    batches = list(cut(lengths, budget))

    rows = [row for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths)
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[row] for row in batch) <= budget


GROWTH = """
from pathlib import Path
from dedup.ml.packing import product
import torch

def held():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

torch.set_num_threads(1)
wide = product(torch.ones(1536, 384), torch.ones(1536))
def read(lengths):
    for length in lengths:
        wide(torch.ones(length, 384))
    return held()

print(-read(range(1, 450)) + read(range(450, 1000)))
"""


def test_memory_does_not_grow_with_each_new_length_that_is_read():
    environ = {name: value for name, value in os.environ.items() if "CACHE_CAPACITY" not in name}

    grown = subprocess.check_output([sys.executable, "-c", GROWTH], timeout=120, env=environ)

    assert float(grown) < 30  # megabytes; 80 where a kernel is kept for each length
