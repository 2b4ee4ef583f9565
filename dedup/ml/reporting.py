"""What a release is worth on pairs that people judged: figures with intervals, by segment, beside
another release; how fast it is here; written down as a report."""

import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from dedup.ml.card import table
from dedup.ml.evaluation import (
    Weighted,
    average_precision,
    calibration_error,
    cluster_draws,
    clustered,
    clustered_lead,
    precision,
    precision_recall_points,
    recall,
    recall_at_precision,
    reliability_bins,
)
from dedup.ml.pairs import Pair, Scorer, Values
from dedup.ml.plots import precision_recall, reliability

FEWEST_PAIRS = 50  # of fewer nothing is said
FEWEST_DUPLICATES = 10
FEWEST_CLUSTERS = 10  # drawn again, fewer tell nothing of the others that there could be
MOST_VALUES = 20  # of a segment, those with most pairs
RECALLS = np.linspace(0.05, 1, 20)  # where the curve is known
BATCH = 256
TEXTS, ASKED, CANDIDATES = 200, 8, 50  # for the speed: read, asked of those, compared with each
FIGURES = ("average_precision", "recall_at_wanted", "precision", "recall", "calibration_error")
LESS_IS_BETTER = {"calibration_error"}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Held:
    """Pairs that people judged and that nothing was fitted on, each array (n,).

    A pair stands for `weights` pairs like it; pairs of one cluster hang together; `segments` says
    of each to which parts of all questions it belongs.
    """

    pairs: Sequence[Pair]
    labels: np.ndarray
    weights: np.ndarray
    clusters: Sequence[Hashable]
    segments: Sequence[Mapping[str, str]]

    @property
    def counts(self) -> dict[str, int]:
        """How much there is."""
        duplicates = int((self.labels > 0.5).sum())
        return {
            "pairs": len(self.labels), "duplicates": duplicates,
            "clusters": len(set(self.clusters)),
        }  # fmt: skip

    def only(self, rows: np.ndarray) -> "Held":
        """The rows that are true."""
        at = [int(i) for i in np.flatnonzero(rows)]
        return Held(
            [self.pairs[i] for i in at], self.labels[at], self.weights[at],
            [self.clusters[i] for i in at], [self.segments[i] for i in at],
        )  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What one release says of the pairs, and from which probability on it flags."""

    release: str
    probabilities: np.ndarray
    threshold: float

    def only(self, rows: np.ndarray) -> "Said":
        """Of the rows that are true."""
        return Said(self.release, self.probabilities[rows], self.threshold)


def is_enough(counts: Mapping[str, int]) -> bool:
    """Whether figures of so many pairs tell something."""
    others = counts["pairs"] - counts["duplicates"]
    return (
        counts["pairs"] >= FEWEST_PAIRS
        and min(counts["duplicates"], others) >= FEWEST_DUPLICATES
        and counts["clusters"] >= FEWEST_CLUSTERS
    )


def judged(scorer: Scorer, pairs: Sequence[Pair], progress: Progress, step: str) -> np.ndarray:
    """(n,) probabilities, each text embedded once."""
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.older, pair.newer)))
    vectors: list[np.ndarray] = []
    for i in range(0, len(texts), BATCH):
        progress(0, len(pairs), step)
        vectors.extend(scorer.embed(texts[i : i + BATCH]))
    known = dict(zip(texts, vectors, strict=True))
    found: list[float] = []
    for i in range(0, len(pairs), BATCH):
        progress(i, len(pairs), step)
        chosen = pairs[i : i + BATCH]
        cosines = [float(known[pair.older] @ known[pair.newer]) for pair in chosen]
        found.extend(said.probability for said in scorer.judge(chosen, cosines))
    return np.asarray(found)


def on_own_pairs(held: Held, said: Said, wanted: float, against: Said | None) -> dict[str, Any]:
    """Everything that a report says of the portal's own pairs."""
    found: dict[str, Any] = {
        **held.counts, "threshold": said.threshold, "wanted_precision": wanted,
        "fewest": {
            "pairs": FEWEST_PAIRS, "duplicates": FEWEST_DUPLICATES, "clusters": FEWEST_CLUSTERS,
        },
        **measured(held, said, wanted, against),
        "segments": by_segment(held, said, wanted, against),
    }  # fmt: skip
    if against:
        found["against"] = {"release": against.release, "threshold": against.threshold}
    if is_enough(held.counts):
        p, labels, weights = said.probabilities, held.labels, held.weights
        if against:
            best = best_precisions(against.probabilities, labels, weights)
            found["against"]["curve"] = [float(value) for value in best]
        found["curve"] = curve(p, labels, weights, cluster_draws(held.clusters))
        found["reliability"] = [one.as_dict() for one in reliability_bins(p, labels, weights)]
    return found


def measured(held: Held, said: Said, wanted: float, against: Said | None) -> dict[str, Any]:
    """Each figure with its interval, and the lead over the other release; empty where too few."""
    if not is_enough(held.counts):
        return {"figures": {}, "leads": {}}
    draws = cluster_draws(held.clusters)
    figures, leads = {}, {}
    for name in FIGURES:
        metric = metric_of(name, wanted)
        mine = seen_by(name, said)
        found = clustered(metric, mine, held.labels, draws, held.weights)
        if found:
            figures[name] = found.as_dict()
        if against:
            other = seen_by(name, against)
            lead = clustered_lead(metric, mine, other, held.labels, draws, held.weights)
            if lead:
                leads[name] = lead.as_dict()
    return {"figures": figures, "leads": leads}


def metric_of(name: str, wanted: float) -> Weighted:
    """A figure by its name."""
    metrics: dict[str, Weighted] = {
        "average_precision": average_precision,
        "recall_at_wanted": partial(recall_at_precision, wanted=wanted),
        "precision": partial(precision, at=0.0),
        "recall": partial(recall, at=0.0),
        "calibration_error": calibration_error,
    }
    return metrics[name]


def seen_by(name: str, said: Said) -> np.ndarray:
    """What a figure is made of: where it speaks of the threshold, how far each pair is above it, so
    that each release is seen at its own."""
    is_at_threshold = name in {"precision", "recall"}
    return said.probabilities - (said.threshold if is_at_threshold else 0.0)


def by_segment(
    held: Held, said: Said, wanted: float, against: Said | None
) -> dict[str, list[dict[str, Any]]]:
    """Figures for each value of each segment, those with most pairs first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in held.segments[0] if len(held.segments) else ():
        values = [segments[kind] for segments in held.segments]
        found[kind] = []
        for value, _count in Counter(values).most_common(MOST_VALUES):
            rows = np.asarray([one == value for one in values])
            part = held.only(rows)
            other = against.only(rows) if against else None
            found[kind].append({
                "value": value, **part.counts, **measured(part, said.only(rows), wanted, other),
            })  # fmt: skip
    return found


def curve(
    scores: Values, labels: Values, weights: Values, draws: np.ndarray
) -> list[dict[str, float]]:
    """Best precision at each recall, with the middle 95 % over samples of whole clusters."""
    w = np.asarray(weights, float)
    drawn = np.asarray([best_precisions(scores, labels, w * each) for each in draws])
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    at = best_precisions(scores, labels, w)
    return [
        {"recall": float(r), "precision": float(p), "low": float(least), "high": float(most)}
        for r, p, least, most in zip(RECALLS, at, low, high, strict=True)
    ]


def best_precisions(scores: Values, labels: Values, weights: Values) -> np.ndarray:
    """(20,) best precision of all thresholds that reach each recall; nan without duplicates."""
    points = precision_recall_points(scores, labels, weights)
    if not points:
        return np.full(len(RECALLS), np.nan)
    reached = np.asarray([point.recall for point in points])
    right = np.asarray([point.precision for point in points])
    best = np.maximum.accumulate(right[::-1])[::-1]  # reached there or further down
    first = np.searchsorted(reached, RECALLS - 1e-9)
    return np.asarray(best[np.minimum(first, len(best) - 1)])


def speed(
    scorer: Scorer, texts: Sequence[str], progress: Progress, step: str = "timing"
) -> dict[str, Any]:
    """How long a check's networks take here: one question read and compared with its nearest 50.

    Processor seconds are those of this process, over all its threads.
    """
    known = list(islice(cycle(texts), TEXTS))
    begun = time.perf_counter()
    vectors = scorer.embed(known)
    reading = time.perf_counter() - begun
    spent, judging = [], 0.0
    used = time.process_time()
    for number in range(ASKED):
        progress(number, ASKED, step)
        begun = time.perf_counter()
        vector = scorer.embed([known[number]])[0]
        cosines = vectors @ vector
        cosines[number] = -2.0  # not with itself
        near = np.argsort(-cosines, kind="stable")[:CANDIDATES]
        began_judging = time.perf_counter()
        pairs = [Pair(known[i], known[number]) for i in near]
        scorer.judge(pairs, [float(cosines[i]) for i in near])
        judging += time.perf_counter() - began_judging
        spent.append(1000 * (time.perf_counter() - begun))
    used = time.process_time() - used
    return {
        "candidates": CANDIDATES,
        "questions": ASKED,
        "characters": round(float(np.median([len(text) for text in known]))),
        "milliseconds_median": float(np.median(spent)),
        "milliseconds_most": max(spent),
        "pairs_a_second": ASKED * CANDIDATES / judging,
        "texts_a_second": TEXTS / reading,
        "cpu_seconds_per_1000": 1000 * used / ASKED,
    }


def processor() -> str:
    """What the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def pictures(held: Held, said: Said, against: Said | None) -> dict[str, str]:
    """SVG by name; none where too few were judged."""
    if not is_enough(held.counts):
        return {}
    curves = [(one.release, one.probabilities) for one in (said, against) if one]
    labels, weights = held.labels, held.weights
    return {
        "reliability": reliability(
            said.probabilities, labels, f"Calibration of {said.release}", weights=weights
        ),
        "precision-recall": precision_recall(
            curves, labels, f"Ranking by {said.release}", weights=weights
        ),
    }


def write(folder: Path, report: Mapping[str, Any], drawn: Mapping[str, str]) -> None:
    """The whole report as a folder: JSON, Markdown and pictures. Raises OSError."""
    folder.mkdir(parents=True)
    for name, picture in drawn.items():
        (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(as_markdown(report, drawn), encoding="utf-8")


WORDS = {
    "average_precision": "average precision",
    "recall_at_wanted": "recall at the wanted precision",
    "precision": "precision at the threshold",
    "recall": "recall at the threshold",
    "calibration_error": "calibration error",
}


def as_markdown(report: Mapping[str, Any], drawn: Mapping[str, str]) -> str:
    """The report for people who read it elsewhere."""
    parts = [_head(report)]
    if "own" in report:
        parts += [_own(report["own"]), _segments(report["own"])]
    parts += [(f"![{name}]({name}.svg)" for name in drawn)]
    if "sets" in report:
        parts.append(_sets(report["sets"]))
    if "speed" in report:
        parts.append(_speed(report["speed"]))
    return "\n".join(line for part in parts for line in (*part, "")) + "\n"


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {report['release']}, measured {report['made_at'][:10]}"
    yield ""
    yield f"Fingerprint {report['fingerprint']}."


def _own(own: Mapping[str, Any]) -> Iterator[str]:
    wanted = own["wanted_precision"]
    yield "## On the portal's own pairs"
    yield ""
    yield f"{own['pairs']} pairs that people judged and nothing was fitted on, {own['duplicates']}"
    yield f"of them duplicates, in {own['clusters']} groups. Each counts for as many as it stood"
    yield "for when it was chosen; intervals at 95 %, by whole groups drawn again."
    yield f"Wanted precision {wanted:.2f}, threshold {own['threshold']:.3f}."
    yield ""
    if not own["figures"]:
        yield _too_few(own)
        return
    other = own.get("against", {}).get("release")
    columns = ["figure", "value", *([f"above {other}", "p"] if other else [])]
    yield from table(columns, ((WORDS[name], *_figure(own, name, other)) for name in FIGURES))


def _too_few(own: Mapping[str, Any]) -> str:
    fewest = own["fewest"]
    return (
        f"Too few for figures: it takes {fewest['pairs']} pairs in {fewest['clusters']} groups, "
        f"{fewest['duplicates']} duplicates and as many others."
    )


def _figure(row: Mapping[str, Any], name: str, other: str | None) -> Iterator[str]:
    found, lead = row["figures"].get(name), row["leads"].get(name)
    yield _between(found) if found else "too few"
    if other:
        yield _between(lead, sign="+") if lead else ""
        yield f"{lead['p']:.3f}" if lead else ""


def _between(found: Mapping[str, float], sign: str = "") -> str:
    value, low, high = (format(found[k], f"{sign}.3f") for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _segments(own: Mapping[str, Any]) -> Iterator[str]:
    yield "## By segment"
    yield ""
    chosen = ("average_precision", "precision", "recall", "calibration_error")
    rows = (
        (kind, str(row["value"]), str(row["pairs"]), str(row["duplicates"]),
         *(_between(f) if (f := row["figures"].get(name)) else "too few" for name in chosen))
        for kind, values in own["segments"].items() for row in values
    )  # fmt: skip
    columns = ("segment", "value", "pairs", "duplicates", *(WORDS[name] for name in chosen))
    yield from table(columns, rows)


def _sets(sets: Mapping[str, Any]) -> Iterator[str]:
    yield "## On fixed sets"
    yield ""
    columns = ("set", "rows", "metric", "release", "cosine alone", "words alone")
    yield from table(columns, ranked_rows(sets))


def ranked_rows(sets: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row for each set that something was ranked on."""
    named = {key: sets[key] for key in ("shortlists", "topics", "links") if key in sets}
    for name, row in {**named, **sets.get("sets", {}), **sets.get("intents", {})}.items():
        figures = (f"{row[kind]:.4f}" for kind in ("release", "cosine", "tfidf"))
        yield name, str(row["rows"]), row["metric"], *figures


def _speed(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Speed on this machine"
    yield ""
    yield f"{found.get('processor', '')}, {found.get('threads', '')} threads,"
    yield f"{found.get('precision', '')}. One question read and compared with"
    yield f"{found['candidates']}: {found['milliseconds_median']:.0f} ms (median of"
    yield f"{found['questions']}), {found['pairs_a_second']:.0f} pairs a second,"
    yield f"{found['cpu_seconds_per_1000']:.0f} processor seconds for 1,000 questions."
