"""The cross-encoder beside plain transformers and sentence-transformers, in one run.

Rounds are interleaved, so that whatever else the machine does slows all alike; figures are medians.
"""

import random
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dedup.ml.reporting import processor

CANDIDATES = (20, 50)
MATRIX = (2_000, 384, 1_536)  # the shape of the largest product in the network
DEFAULT = "sentence-transformers"  # the way most people run a cross-encoder
STARTED = """
import resource, sys, time
begun = time.perf_counter()
from dedup.ml.release import open_release
open_release(__import__("pathlib").Path(sys.argv[1]), threads=1)
print(time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@dataclass(frozen=True)
class Job:
    """Pairs to score, and how many tokens and floating point operations that takes."""

    name: str
    pairs: list[Any]
    tokens: int
    flop: float


def add_arguments(parser: ArgumentParser) -> None:
    """Of `manage.py bench scorer`."""
    parser.add_argument("--release", default=settings.DEDUP_RELEASE, help="name or folder")
    parser.add_argument("--pairs", type=int, default=192, help="in bulk")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--drift", type=int, default=300, help="pairs held against the reference")


def run(console: Console, options: dict[str, Any]) -> tuple[dict[str, Any], list[Table]]:
    """Figures, and the tables that show them."""
    import torch  # noqa: PLC0415 - the web process loads this module's neighbours

    from dedup.ml.crossencoder import CrossEncoder  # noqa: PLC0415
    from dedup.ml.packing import bf16_by  # noqa: PLC0415

    folder = Path(options["release"])
    folder = folder if folder.is_dir() else settings.DEDUP_ARTIFACTS / options["release"]
    cross = CrossEncoder(folder / "cross-encoder")
    jobs = make_jobs(cross, options["pairs"])
    ways = contenders(folder, cross)
    found: dict[str, Any] = {
        "processor": processor(), "bf16_by": bf16_by(), "torch": torch.__version__,
        "precision": str(cross.dtype).removeprefix("torch."),
        "jobs": {job.name: {"pairs": len(job.pairs), "tokens": job.tokens} for job in jobs},
        "threads": {},
    }  # fmt: skip
    with Progress(console=console, transient=True) as progress:
        steps = len(options["threads"]) * options["rounds"] * len(jobs) * len(ways)
        task = progress.add_task("scoring", total=steps)
        for threads in options["threads"]:
            torch.set_num_threads(threads)
            spent = timed(ways, jobs, options["rounds"], lambda: progress.advance(task))
            found["threads"][threads] = {
                "gemm": {kind: gemm_peak(kind) for kind in ("float32", "bfloat16")},
                "seconds": {f"{way}|{job}": value for (way, job), value in spent.items()},
                "embedding": embedding(folder),
            }
        torch.set_num_threads(1)
        found["drift"] = drift(cross, options["drift"])
        found["start"] = started(folder)
    found["flop"] = {job.name: job.flop for job in jobs}
    return found, tables(found)


def make_jobs(cross: Any, bulk: int) -> list[Job]:
    """Short pairs are titles, long ones questions with bodies; all written for this project."""
    from dedup.ml.clusters import TOPICS, read_clusters, training_names  # noqa: PLC0415
    from dedup.ml.pairs import Pair  # noqa: PLC0415

    rng = random.Random(3)  # noqa: S311 - no secret
    found = read_clusters([*training_names(), *TOPICS])
    titles = [question.title for question in found]
    whole = [question.input for question in found if len(question.body) > 150]
    short = [" ".join(rng.sample(titles, 2)) for _ in range(max(2 * bulk, CANDIDATES[-1] + 1))]
    long = [" ".join(rng.sample(whole, 2)) for _ in range(2 * bulk)]
    jobs = []
    for name, texts in (("short", short), ("long", long)):
        pairs = [Pair(*texts[i : i + 2]) for i in range(0, 2 * bulk, 2)]
        jobs.append(job(cross, f"bulk, {name}", pairs))
    for count in CANDIDATES:
        pairs = [Pair(short[0], other) for other in short[1 : count + 1]]
        jobs.append(job(cross, f"1 against {count}, short", pairs))
    return jobs


def job(cross: Any, name: str, pairs: list[Any]) -> Job:
    """Multiply-adds count twice; attention grows with the square of a pair's tokens."""
    config = cross.network.config
    width, wide, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    lengths = [len(ids) for ids in cross.encode(pairs)[0]]
    each = 2 * layers * (4 * width * width + 2 * width * wide)
    squared = 4 * layers * width
    flop = sum(each * n + squared * n * n for n in lengths)
    return Job(name, pairs, sum(lengths), float(flop))


def contenders(folder: Path, cross: Any) -> dict[str, Callable[[Sequence[Any]], Any]]:
    """Ways to score pairs, by name."""
    import torch  # noqa: PLC0415

    from dedup.ml.crossencoder import CrossEncoder  # noqa: PLC0415

    plain = CrossEncoder(folder / "cross-encoder", dtype=torch.float32)
    ways: dict[str, Callable[[Sequence[Any]], Any]] = {
        "transformers, one by one": cross.reference_scores,
        "ours, fp32": plain.scores,
    }
    if cross.dtype != torch.float32:
        ways[f"ours, {str(cross.dtype).removeprefix('torch.')}"] = cross.scores
    try:
        import sentence_transformers  # noqa: PLC0415 - comes with the extra `train`
    except ImportError:
        return ways
    usual = sentence_transformers.CrossEncoder(
        str(folder / "cross-encoder"), device="cpu", model_kwargs={"dtype": torch.float32}
    )

    def predict(pairs: Sequence[Any]) -> Any:
        return usual.predict([(p.older, p.newer) for p in pairs], show_progress_bar=False)

    return {DEFAULT: predict, **ways}


def timed(
    ways: dict[str, Callable[[Sequence[Any]], Any]], jobs: Sequence[Job], rounds: int,
    step: Callable[[], None],
) -> dict[tuple[str, str], float]:  # fmt: skip
    """Median seconds by way and job; every round runs all ways, once each."""
    spent: dict[tuple[str, str], list[float]] = {}
    for way in ways.values():
        way(jobs[-1].pairs)  # kernels are chosen at the first use
    for _ in range(rounds):
        for each in jobs:
            for name, way in ways.items():
                begun = time.perf_counter()
                way(each.pairs)
                spent.setdefault((name, each.name), []).append(time.perf_counter() - begun)
                step()
    return {key: statistics.median(values) for key, values in spent.items()}


def gemm_peak(kind: str) -> float:
    """Most floating point operations a second that a product of the network's shape reached."""
    import torch  # noqa: PLC0415

    rows, inner, columns = MATRIX
    left = torch.randn(rows, inner).to(getattr(torch, kind))
    weight = torch.randn(columns, inner).to(getattr(torch, kind))
    best = float("inf")
    with torch.inference_mode():
        for _ in range(12):
            begun = time.perf_counter()
            torch.nn.functional.linear(left, weight)
            best = min(best, time.perf_counter() - begun)
    return 2 * rows * inner * columns / best


def embedding(folder: Path) -> dict[str, float]:
    """Median milliseconds for one text, and texts a second in bulk."""
    from dedup.ml.biencoder import BiEncoder  # noqa: PLC0415
    from dedup.ml.clusters import REPORTING, read_clusters  # noqa: PLC0415

    bi = BiEncoder(folder / "bi-encoder")
    texts = [question.input for question in read_clusters(REPORTING)]
    each = []
    for text in texts[:20]:
        begun = time.perf_counter()
        bi.embed([text])
        each.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    bi.embed(texts)
    return {
        "one_ms": 1000 * statistics.median(each),
        "texts_per_second": len(texts) / (time.perf_counter() - begun),
    }


def drift(cross: Any, count: int) -> dict[str, float]:
    """Largest difference of a logit from the fp32 reference, over pairs of all lengths."""
    import numpy as np  # noqa: PLC0415

    jobs = make_jobs(cross, (count + 1) // 2)
    pairs = [pair for each in jobs[:2] for pair in each.pairs][:count]
    apart = np.abs(cross.scores(pairs) - cross.reference_scores(pairs))
    return {"pairs": len(pairs), "largest": float(apart.max()), "mean": float(apart.mean())}


def started(folder: Path) -> dict[str, float]:
    """Seconds until a fresh process can score, and the most memory it held, in megabytes."""
    command = [sys.executable, "-c", STARTED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = done.stdout.split()
    return {"seconds": float(seconds), "megabytes": float(memory)}


def tables(found: dict[str, Any]) -> list[Table]:
    """One for each number of threads, and one of what is left."""
    made = [_speed(found, threads) for threads in found["threads"]]
    rest = Table("what", "figure", title="The rest")
    rest.add_row("processor", f"{found['processor']}, bf16 by {found['bf16_by'] or 'nothing'}")
    away = found["drift"]
    rest.add_row(
        "largest difference from the fp32 reference",
        f"{away['largest']:.3f} logit over {away['pairs']} pairs, {found['precision']}",
    )
    start = found["start"]
    rest.add_row("start of a process", f"{start['seconds']:.1f} s, {start['megabytes']:.0f} MB")
    for threads, row in found["threads"].items():
        text = row["embedding"]
        rest.add_row(
            f"embedding, {threads} threads",
            f"{text['one_ms']:.1f} ms for one, {text['texts_per_second']:.0f} a second in bulk",
        )
    return [*made, rest]


def _speed(found: dict[str, Any], threads: int) -> Table:
    row = found["threads"][threads]
    title = f"{threads} threads: pairs a second, times the default, share of the GEMM peak"
    table = Table(title=title)
    table.add_column("way", no_wrap=True)
    for name, job in found["jobs"].items():
        table.add_column(f"{name} ({job['tokens'] / job['pairs']:.0f} tokens)", justify="right")
    ways = list(dict.fromkeys(key.partition("|")[0] for key in row["seconds"]))
    for way in ways:
        peak = row["gemm"]["bfloat16" if "bfloat16" in way else "float32"]
        cells = []
        for name, job in found["jobs"].items():
            seconds = row["seconds"][f"{way}|{name}"]
            usual = row["seconds"].get(f"{DEFAULT}|{name}")
            times = f", x{usual / seconds:.1f}" if usual else ""
            share = found["flop"][name] / seconds / peak
            cells.append(f"{job['pairs'] / seconds:.0f}{times}, {share:.0%}")
        table.add_row(way, *cells)
    return table
