import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

import dedup.ml
from dedup.ml.building import write_cross_encoder
from dedup.ml.training import Recipe, average

RECIPES = Path(dedup.ml.__file__).parent / "recipes"
CONFIG = {
    "vocab_size": 5, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 8, "num_labels": 1,
}  # fmt: skip


def write_network(folder, kind, seed):
    torch.manual_seed(seed)
    network = kind(BertConfig(**CONFIG))
    network.save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
    )
    tokenizer.save_pretrained(folder)
    return {name: weight.clone() for name, weight in network.state_dict().items()}


def weights_of(folder):
    network = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return network.state_dict()


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.json")), ids=lambda file: file.stem)
def test_every_recipe_names_only_stages_that_it_has(file):
    recipe = Recipe.read(file)
    names = [stage.name for stage in recipe.stages]

    assert len(set(names)) == len(names)
    assert set(recipe.average) <= set(names)
    for number, stage in enumerate(recipe.stages):
        assert set(stage.after) <= set(names[:number])


def test_a_recipe_with_an_unknown_word_is_refused(tmp_path):
    row = {"name": "a", "mixture": {"quora": 1}, "speed": 9}
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"seed": 1, "stages": [row], "average": ["a"]}))

    with pytest.raises(TypeError, match="speed"):
        Recipe.read(file)


def test_the_average_lies_in_the_middle(tmp_path):
    one = write_network(tmp_path / "one", BertForSequenceClassification, 1)
    two = write_network(tmp_path / "two", BertForSequenceClassification, 2)

    found = weights_of(average([tmp_path / "one", tmp_path / "two"], tmp_path / "out"))

    for name, weight in found.items():
        torch.testing.assert_close(weight, (one[name] + two[name]) / 2)


def test_a_network_part_of_the_way_keeps_that_part_of_its_head(tmp_path):
    base = write_network(tmp_path / "base", BertModel, 1)
    trained = write_network(tmp_path / "trained", BertForSequenceClassification, 2)

    write_cross_encoder(tmp_path / "base", tmp_path / "trained", 0.25, tmp_path / "out")

    for name, weight in weights_of(tmp_path / "out").items():
        before = base.get(name.removeprefix("bert."), torch.zeros_like(trained[name]))
        wanted = before + 0.25 * (trained[name] - before)
        torch.testing.assert_close(weight, wanted, atol=2e-3, rtol=2e-3)  # it is kept in fp16
