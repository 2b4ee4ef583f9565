"""Trains a cross-encoder after a recipe: stages, one after the other, each over a mixture.

    python -m dedup.ml.training --data FOLDER --base FOLDER --recipe FILE --folder FOLDER

On strangers' texts, where the base knows more than the labels do, the network is held small, or
learns from a larger bi-encoder (see `teaching`). The loop and its loss are in `fitting`.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from dedup.ml import fitting
from dedup.ml.biencoder import BiEncoder, pair_cosines
from dedup.ml.data import Labelled
from dedup.ml.fitting import MIDDLE, SCALE, UNKNOWN, Course, Example, start_network
from dedup.ml.mixture import Mixture, mix
from dedup.ml.packing import fastest_dtype
from dedup.ml.pairs import Pair
from dedup.ml.teaching import Teacher, brought_to

log = logging.getLogger(__name__)

DONE = "stage.json"  # written last: what made the network beside it


@dataclass(frozen=True)
class Stage(Course):
    """One run over a mixture.

    It begins with the mean of the weights of the stages `after`, or where the one before it ended.
    """

    name: str
    mixture: Mixture
    after: tuple[str, ...] = ()
    seed: int | None = None  # the recipe's and the stage's number where it is not given
    is_taught: bool = False  # strangers' corrections are a teacher's, not zero


@dataclass(frozen=True)
class Recipe:
    """How a network is made, stage after stage: a file, written into the release's manifest too.

    The weights of the stages in `average` make the network (model soups: Wortsman et al. 2022a).
    """

    seed: int
    stages: tuple[Stage, ...]
    average: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> "Recipe":
        """Raises TypeError or KeyError where the file says what no recipe has."""
        given = json.loads(file.read_text(encoding="utf-8"))
        stages = [
            Stage(
                **{**row, "mixture": Mixture(**row["mixture"]), "after": (*row.get("after", ()),)}
            )
            for row in given["stages"]
        ]
        return cls(given["seed"], tuple(stages), tuple(given["average"]))


def train(
    data: Path, base: Path, folder: Path, recipe: Recipe, teacher: Path | None = None
) -> Path:
    """Runs the stages in `folder`; returns the folder of the network that they make.

    A stage that is finished there is not run again, one that was stopped goes on from its last
    checkpoint. `teacher` is a larger bi-encoder's folder, for the stages that are taught. Raises
    FloatingPointError where a loss is not finite, KeyError where a stage is named that does not
    come before, ValueError where a teacher is missing.
    """
    done: dict[str, Path] = {}
    start = base
    for number, stage in enumerate(recipe.stages, 1):
        out = folder / f"{number}-{stage.name}"
        if stage.after:
            start = average([done[name] for name in stage.after], folder / "start" / stage.name)
        if not (out / DONE).exists():
            taught_by = _teacher(teacher, folder, stage)
            seed = recipe.seed + number - 1 if stage.seed is None else stage.seed
            fit(data, base, start, out, stage, seed, taught_by)
        start = done[stage.name] = out
    return average([done[name] for name in recipe.average], folder / "network")


def average(trained: Sequence[Path], out: Path) -> Path:
    """Writes the network whose weights are the mean of those of `trained`; returns `out`."""
    networks = [
        BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        for folder in trained
    ]
    weights = [network.state_dict() for network in networks]
    mean = {name: torch.stack([w[name] for w in weights]).mean(0) for name in weights[0]}
    networks[0].load_state_dict(mean)
    networks[0].save_pretrained(out)
    AutoTokenizer.from_pretrained(trained[0]).save_pretrained(out)
    return out


def _teacher(teacher: Path | None, folder: Path, stage: Stage) -> Teacher | None:
    if not stage.is_taught:
        return None
    if teacher is None:
        raise ValueError(f"stage {stage.name} is taught: a teacher's folder is needed")
    folder.mkdir(parents=True, exist_ok=True)
    return Teacher(teacher, folder / "teacher.npz")


def fit(
    data: Path, base: Path, start: Path, out: Path, stage: Stage, seed: int,
    teacher: Teacher | None = None,
) -> None:  # fmt: skip
    """One pass over the stage's mixture, or as far as its minutes reach; writes `out`.

    `base` gives the cosines, `start` the weights. Raises FloatingPointError where the loss is not
    finite.
    """
    bi, tokenizer = BiEncoder(base, fastest_dtype()), AutoTokenizer.from_pretrained(base)
    rows = mix(data, bi, stage.mixture, seed)
    examples = encode(rows, bi, tokenizer, stage, teacher)
    log.info("stage %s: %d pairs", stage.name, len(examples))
    network = start_network(start, seed, stage.dropout, is_fresh=start == base)
    done = fitting.descend(network, tokenizer, examples, out, stage, seed, progress=_say)
    network.save_pretrained(out)
    tokenizer.save_pretrained(out)
    fitting.finished(out)
    (out / DONE).write_text(json.dumps({**asdict(stage), "seed": seed, "steps": done.step}))


def _say(step: int, steps: int, loss: float, seconds_left: float) -> None:
    if step % 50 == 0:
        log.info("step %d of %d, loss %.4f, %.0f min left", step, steps, loss, seconds_left / 60)


def encode(
    rows: Sequence[Labelled],
    bi: BiEncoder,
    tokenizer: AutoTokenizer,
    stage: Stage,
    teacher: Teacher | None = None,
) -> list[Example]:
    """Token ids, in the order that serving uses, and the cosine of each pair."""
    ordered = [Pair(*sorted([row.first, row.second])) for row in rows]
    log.info("embedding the texts of %d pairs", len(ordered))
    cosines = pair_cosines(bi.embed, ordered)
    offsets, wanted = SCALE * (cosines - MIDDLE), np.zeros(len(rows))
    strange = np.asarray([row.label == UNKNOWN for row in rows])
    if teacher and strange.any():
        taught = pair_cosines(
            teacher.embed, [p for p, is_strange in zip(ordered, strange, strict=True) if is_strange]
        )
        wanted[strange] = SCALE * (brought_to(taught, cosines[strange]) - cosines[strange])
        log.info("the teacher corrects by %.2f (standard deviation)", wanted[strange].std())
    ids = fitting.encode(ordered, tokenizer, stage.max_tokens)
    return [
        Example(i, float(offset), row.label, float(correction))
        for i, offset, row, correction in zip(ids, offsets, rows, wanted, strict=True)
    ]


def main() -> None:
    """Command line; progress on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "base", "recipe", "folder"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    train(given.data, given.base, given.folder, Recipe.read(given.recipe), given.teacher)


if __name__ == "__main__":
    main()
