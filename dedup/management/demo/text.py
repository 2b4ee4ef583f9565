"""The demo's text, written for this project: a portal of four products, and what is asked later."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SOURCE = "demo:"  # Question.source of a seeded question is this and its key


def seed() -> dict[str, Any]:
    """Products, people and questions with their answers, as they are before anything is checked."""
    read: dict[str, Any] = json.loads((FOLDER / "seed.json").read_text(encoding="utf-8"))
    return read


def arrivals() -> list[dict[str, Any]]:
    """Twenty questions that come later: twelve asked before in other words, eight near misses."""
    read: list[dict[str, Any]] = json.loads((FOLDER / "arrivals.json").read_text(encoding="utf-8"))
    return read


def cluster_of(key: str) -> set[str]:
    """The keys of all seeded questions that ask what the question `key` asks."""
    oldest = {q["key"]: q["duplicate_of"] or q["key"] for q in seed()["questions"]}
    return {other for other in oldest if oldest[other] == oldest[key]}
