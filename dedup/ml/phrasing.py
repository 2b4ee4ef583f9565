"""Support questions out of phrasings written for this project: other words, and near misses.

`phrasings.json` holds families of tasks that are easily confused; each task is said in several
ways, with a slot. Same task and slot, other words: 1. Another slot or a sibling task: 0.
"""

import json
import random
from pathlib import Path
from typing import Any

from dedup.ml.data import Labelled

FILE = Path(__file__).with_name("phrasings.json")
HELD_EVERY = 5  # no network is trained on each fifth family


def phrase(count: int, rng: random.Random) -> list[Labelled]:
    """`count` labelled pairs for training."""
    written = json.loads(FILE.read_text(encoding="utf-8"))
    families = [f for i, f in enumerate(written["families"]) if i % HELD_EVERY != HELD_EVERY - 1]
    return [_pair(written, rng.choice(families), rng) for _ in range(count)]


def _pair(written: dict[str, Any], family: dict[str, Any], rng: random.Random) -> Labelled:
    ((slot, values),) = family["slots"].items()
    task, value = rng.choice(family["tasks"]), rng.choice(values)
    kind = rng.choices(["same", "slot", "sibling"], [5, 3, 2])[0]
    other = rng.choice([v for v in values if v != value]) if kind == "slot" else value
    sibling = rng.choice([t for t in family["tasks"] if t is not task])
    second = sibling if kind == "sibling" else task
    is_alike = kind != "same" and rng.random() < 0.5  # the same words, but for what matters
    ways = rng.sample(range(len(task)), 4)
    again = ways[:2] if is_alike and second is task else rng.sample(range(len(second)), 2)
    again = again if kind != "same" else ways[2:]
    has_bodies = rng.random() < 0.65
    asides = rng.sample(written["asides"], 4)
    shared = asides[0] if rng.random() < 0.25 else None
    first_text = _text(written, [task[i] for i in ways[:2]], has_bodies, shared, asides[1], rng)
    second_text = _text(
        written, [second[i] for i in again], has_bodies and rng.random() < 0.9, shared,
        asides[2], rng,
    )  # fmt: skip
    mark = "{" + slot + "}"
    return Labelled(
        first_text.replace(mark, value), second_text.replace(mark, other), float(kind == "same")
    )


def _text(
    written: dict[str, Any], says: list[str], has_body: bool, shared: str | None, aside: str,
    rng: random.Random,
) -> str:  # fmt: skip
    title = says[0]
    if not has_body:
        return title if rng.random() < 0.8 else title.lower()
    sentences = [shared or "", aside if rng.random() < 0.7 else ""]
    if rng.random() < 0.7:
        sentences.append(says[1] if says[1].endswith("?") else says[1] + ".")
    rng.shuffle(sentences)
    parts = [rng.choice(written["openings"]), *sentences, rng.choice(written["closings"])]
    return " ".join([title, *(p for p in parts if p)])
