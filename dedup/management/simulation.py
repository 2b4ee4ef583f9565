"""What `simulate_loop` runs: ways of asking beside each other, each in a process of its own."""

import json
import logging
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from dedup.ml.evaluation import (
    average_precision,
    calibration_error,
    cluster_draws,
    clustered_lead,
    recall_at_precision,
)
from dedup.ml.finetuning import Plan, Tell
from dedup.ml.plots import lines
from dedup.ml.simulating import Measured, Portal, Simulation, make_portal, make_start

log = logging.getLogger(__name__)

MOST_TOKENS = 96  # of a pair in training: forum questions are cut
WANTED = 0.95  # precision at which recall is told
PORTAL, RANDOM = "as the portal asks", "at random"
RECALIBRATED, UNTRAINED = "no retraining, recalibrated", "no retraining"
START = "start"
FIGURES = {
    "average_precision": "Average precision",
    "recall": f"Recall at a precision of {WANTED}",
    "calibration_error": "Expected calibration error",
}


@dataclass(frozen=True)
class Wanted:
    """What is simulated."""

    data: Path
    base: Path
    out: Path
    pool: int
    verdicts: tuple[int, ...]
    wrong: float
    seed: int
    epochs: int


def run(wanted: Wanted) -> dict[str, Any]:
    """All figures; they and a picture of each are written to `wanted.out` too."""
    begun = time.monotonic()
    portal = make_portal(wanted.data, wanted.pool, wanted.seed)
    make_start(
        portal, wanted.base, wanted.out / START, plan=_plan(wanted), progress=_teller("start")
    )
    compared = time.monotonic() - begun
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        ways = dict(zip((PORTAL, RANDOM), processes.map(_way, [wanted] * 2, (PORTAL, RANDOM)),
                        strict=True))  # fmt: skip
    found = {
        **{k: v for k, v in asdict(wanted).items() if k not in {"data", "base", "out"}},
        "held": _described(portal.held, portal.held_clusters),
        "asked_about": _described(portal.pool, portal.pool_clusters),
        "ways": _judged(portal, ways),
        "portal_over_random": _leads(portal, *ways.values()),
        "seconds": time.monotonic() - begun,
        "seconds_comparing": compared,
    }
    wanted.out.mkdir(parents=True, exist_ok=True)
    (wanted.out / "simulation.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    for name, drawn in pictures(found).items():
        (wanted.out / f"{name}.svg").write_text(drawn, encoding="utf-8")
    return found


def _way(wanted: Wanted, asked_by: str) -> list[Measured]:
    """One way of asking, from the base to the last release."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    portal = make_portal(wanted.data, wanted.pool, wanted.seed)
    simulation = Simulation(
        portal, wanted.base, wanted.out / START, wanted.out / asked_by.replace(" ", "-"),
        seed=wanted.seed, wrong=wanted.wrong, plan=_plan(wanted), progress=_teller(asked_by),
    )  # fmt: skip
    return simulation.run(wanted.verdicts, as_portal=asked_by == PORTAL)


def _plan(wanted: Wanted) -> Plan:
    return Plan(seed=wanted.seed, epochs=wanted.epochs, max_tokens=MOST_TOKENS)


def _teller(name: str) -> Tell:
    said = 0.0

    def tell(done: int, total: int, step: str, left: float | None) -> None:
        nonlocal said
        if time.monotonic() - said > 20:
            said = time.monotonic()
            log.info("%s: %s, %d of %d, %.0f s left", name, step, done, total, left or 0)

    return tell


def _described(pairs: Any, clusters: np.ndarray) -> dict[str, Any]:
    return {
        "pairs": len(pairs),
        "duplicates": int(sum(pair.label for pair in pairs)),
        "clusters": len(set(clusters.tolist())),
    }


def _judged(portal: Portal, ways: dict[str, list[Measured]]) -> dict[str, list[dict[str, Any]]]:
    """The figures of each way, and how far its ranking is above the base's."""
    labels = np.asarray([pair.label for pair in portal.held])
    draws = cluster_draws(portal.held_clusters.tolist())
    found: dict[str, list[dict[str, Any]]] = {}
    for way, rows in ways.items():
        base = rows[0].probabilities
        found[way] = [_row(one, one.probabilities, base, labels, draws) for one in rows]
    portal_rows = ways[PORTAL]
    base = portal_rows[0].probabilities
    found[RECALIBRATED] = [_row(one, one.recalibrated, base, labels, draws) for one in portal_rows]
    found[UNTRAINED] = [_row(one, base, base, labels, draws) for one in portal_rows]
    return found


def _row(
    one: Measured, probabilities: np.ndarray, base: np.ndarray, labels: np.ndarray,
    draws: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    lead = clustered_lead(average_precision, probabilities, base, labels, draws)
    return {
        "verdicts": one.verdicts,
        "wrong": one.wrong,
        "duplicates": one.duplicates,
        "average_precision": average_precision(probabilities, labels),
        "recall": recall_at_precision(probabilities, labels, wanted=WANTED),
        "calibration_error": calibration_error(probabilities, labels),
        "lead": lead.as_dict() if lead else None,
        "seconds": one.seconds,
    }


def _leads(portal: Portal, ones: list[Measured], others: list[Measured]) -> list[dict[str, Any]]:
    """How far the first way is above the second after as many verdicts."""
    labels = np.asarray([pair.label for pair in portal.held])
    draws = cluster_draws(portal.held_clusters.tolist())
    found = []
    for one, other in zip(ones, others, strict=True):
        lead = clustered_lead(
            average_precision, one.probabilities, other.probabilities, labels, draws
        )
        found.append({"verdicts": one.verdicts, **(lead.as_dict() if lead else {})})
    return found


def pictures(found: dict[str, Any]) -> dict[str, str]:
    """A curve over verdicts for each figure, as SVG by name."""
    return {
        figure: lines(
            [
                (way, [(row["verdicts"], row[figure]) for row in rows])
                for way, rows in found["ways"].items()
            ],
            f"{title}, questions never reviewed",
            "verdicts",
            title.lower(),
        )
        for figure, title in FIGURES.items()
    }
