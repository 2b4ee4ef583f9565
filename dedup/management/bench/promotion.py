"""Releases switched under load: whether each score is what the release says that it names.

Real workers check and suggest in a database of their own while one release is put into service and
taken back, again and again, and questions are asked and edited all the time. The other release is a
twin that finds every pair likelier, so that each score tells which of the two gave it. All is gone
afterwards.
"""

import json
import random
import secrets
import shutil
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.db import connection
from django.db.models import Max, Sum
from django.test import override_settings
from django.urls import reverse
from rich.console import Console
from rich.table import Table

from dedup import releases
from dedup.management.bench.queue import PLAIN, person
from dedup.management.bench.suggestions import Workers, await_worker, own_broker
from dedup.management.demo import text
from dedup.management.scratch import scratch_database
from dedup.ml.artifact import MANIFEST, hash_files
from dedup.ml.calibration import Calibration
from dedup.models import Flag, Release, Score, StageTime
from dedup.scoring import pair_of
from dedup.texts import Text, text_of
from support import asking, outbox, permissions
from support.models import OutboxEntry, Product, Question, User

LOGIT_SHIFT, BIAS_SHIFT = 1.0, 1.5  # by which the twin finds every pair likelier
NEAR = 0.2  # logits may differ by how a pair was batched; the twin's lie five times as far
LOOK_SECONDS = 0.05
FEED_SECONDS = 0.5
PAUSE_SECONDS = 1.0  # after the workers took a release up, until the next switch
PATIENCE_SECONDS = 120.0
QUEUED = 20  # questions that wait at the least, so that a gap is the workers' own


def add_arguments(parser: ArgumentParser) -> None:
    """Of `manage.py bench promotion`."""
    parser.add_argument("--seconds", type=float, default=120.0, help="of switching under load")
    parser.add_argument("--workers", type=int, default=2, help="processes that check")
    parser.add_argument("--release", default=settings.DEDUP_RELEASE)


def run(console: Console, options: dict[str, Any]) -> tuple[dict[str, Any], list[Table]]:
    """Figures, and the table that shows them."""
    settings.SECRET_KEY = secrets.token_hex()  # there may be none, and no session outlives this
    with (
        tempfile.TemporaryDirectory() as folder,
        own_broker(Path(folder)) as broker,
        scratch_database(),
        override_settings(**PLAIN, DEDUP_RELEASES_FOLDER=f"{folder}/releases"),
    ):
        permissions.create_roles()
        twin = write_twin(options["release"], Path(folder) / "releases" / "twin")
        first = releases.activate(release=releases.add(options["release"]))
        second = releases.add(twin.name)
        load = Load()
        load.ask(40)
        with Workers(Path(folder), broker) as workers:
            start(workers, options["workers"])
            console.print(f"switching for {options['seconds']:.0f} s")
            with readers() as met:
                found = switch(first, second, load, options["seconds"])
            drain()
            said = workers.log.read_text(errors="replace")
        found |= met | counted(load) | {"tracebacks_of_workers": said.count("Traceback")}
        console.print("asking both releases about every pair")
        found |= compared(first, second, load.texts)
    return found, [table(found)]


def write_twin(name: str, folder: Path) -> Path:
    """The same networks, but for a constant in the last layer and in the calibration."""
    # torch stays out of what the web process can reach
    from safetensors.numpy import load_file, save_file  # noqa: PLC0415

    shutil.copytree(releases.folder_named(name), folder)
    weights = folder / "cross-encoder" / "model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.bias"] = tensors["classifier.bias"] + np.float32(LOGIT_SHIFT)
    save_file(tensors, weights, metadata={"format": "pt"})
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    fitted = raw["calibration"]["coefficients"]
    fitted["bias"] += BIAS_SHIFT
    golden = raw["golden"]
    for one in golden:
        one["logit"] += LOGIT_SHIFT
    logits, cosines = (np.asarray([one[key] for one in golden]) for key in ("logit", "cosine"))
    chances = Calibration(**fitted).probabilities(logits, cosines)
    for one, chance in zip(golden, chances, strict=True):
        one["probability"] = float(chance)
    raw |= {"name": folder.name, "files": hash_files(folder)}
    (folder / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")
    return folder


def start(workers: Workers, number: int) -> None:
    """Workers as the demo has them, so many of them for checks; return once they answer."""
    workers.environ["DEDUP_RELEASES_FOLDER"] = settings.DEDUP_RELEASES_FOLDER
    workers.environ["DEDUP_SWEEP_SECONDS"] = "1"
    for copy in range(number):
        workers.start("checks", copy)
    workers.start("interactive")
    await_worker(workers.log)
    wanted, deadline = (
        OutboxEntry.objects.waiting().count() // 2,
        time.monotonic() + PATIENCE_SECONDS,
    )
    while OutboxEntry.objects.waiting().count() > wanted:
        if time.monotonic() > deadline:
            raise RuntimeError("Nothing is checked")
        time.sleep(LOOK_SECONDS)


@dataclass
class Load:
    """Questions that are asked, edited and put up again, so that something always waits."""

    texts: dict[str, Text] = field(default_factory=dict)  # each that ever was, by its hash
    put: int = 0
    edits: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - no secret
    rows: Iterator[dict[str, str]] = field(default_factory=lambda: iter(text.seed()["questions"]))

    def ask(self, number: int) -> None:
        """Ask the next questions of the demo."""
        product, _ = Product.objects.get_or_create(slug="lamp", defaults={"name": "Lamp"})
        asker, _ = User.objects.get_or_create(username="asker")
        for _ in range(number):
            if row := next(self.rows, None):
                self._note(
                    asking.submit_question(
                        product=product, title=row["title"], body=row["body"], audience="public",
                        by=asker,
                    )
                )  # fmt: skip

    def edit(self, number: int) -> None:
        """Write a word more into some of them: their scores are void, and made anew."""
        for question in Question.objects.filter(pk__in=self._some(number)).order_by("pk"):
            self.edits += 1
            self._remember(question)  # others may have asked it
            self._note(
                asking.edit_question(
                    question=question, title=question.title, audience=question.audience,
                    body=f"{question.body} Again {self.edits}."[:2000], by=question.asked_by,
                    seen=question.version,
                )
            )  # fmt: skip

    def feed(self) -> None:
        """One more, two that read otherwise, and others again where few wait."""
        self.ask(1)
        self.edit(2)
        missing = QUEUED - OutboxEntry.objects.waiting().count()
        if missing > 0:
            self.put += outbox.put_all(self._some(missing))

    def _some(self, number: int) -> list[int]:
        known = list(Question.objects.values_list("pk", flat=True))
        return self.rng.sample(known, min(number, len(known)))

    def _note(self, question: Question) -> None:
        self._remember(question)
        self.put += 1

    def _remember(self, question: Question) -> None:
        read = text_of(question)
        self.texts[read.hash] = read


def switch(
    first: Release, second: Release, load: Load, seconds: float, *, fewest: int = 0
) -> dict[str, Any]:
    """Forward and back under load, at least so often: how soon each was used, longest time without
    a check."""
    took: list[float] = []
    seen: list[datetime] = []
    begun, fed_at = time.monotonic(), 0.0
    while time.monotonic() < begun + seconds or len(took) < fewest:
        is_back = len(took) % 2
        now = releases.roll_back() if is_back else releases.activate(release=second)
        switched, used = time.monotonic(), None
        while used is None or time.monotonic() < used + PAUSE_SECONDS:
            if time.monotonic() > switched + PATIENCE_SECONDS:
                raise RuntimeError(f"No worker took {now} up within {PATIENCE_SECONDS:.0f} s")
            if time.monotonic() > fed_at + FEED_SECONDS:
                load.feed()
                fed_at = time.monotonic()
            note_newest(seen)
            if used is None and is_used(now):
                used = time.monotonic()
                took.append(used - switched)
            time.sleep(LOOK_SECONDS)
    gaps = [(later - sooner).total_seconds() for sooner, later in pairwise(seen)]
    return {
        "seconds": time.monotonic() - begun,
        "switches": len(took),
        "seconds_until_used": {"median": float(np.median(took)), "most": max(took)},
        "longest_gap_between_checks_seconds": max(gaps, default=0.0),
    }


def is_used(release: Release) -> bool:
    """Whether a check by this release settled something since it went into service."""
    by = OutboxEntry.objects.filter(checked_by=release.fingerprint)
    return by.filter(settled_at__gt=release.activated_at).exists()


def note_newest(seen: list[datetime]) -> None:
    """Add when the last check was settled, where one was since."""
    newest = OutboxEntry.objects.aggregate(at=Max("settled_at"))["at"]
    if newest and (not seen or newest > seen[-1]):
        seen.append(newest)


@contextmanager
def readers() -> Iterator[dict[str, Any]]:
    """Somebody reads and types meanwhile; what they met is in the dictionary afterwards."""
    codes, failures, spent = Counter[int](), [], [0.0]
    client, ending = person(permissions.CUSTOMER), threading.Event()
    met: dict[str, Any] = {}

    def read() -> None:
        try:
            while not ending.wait(0.3):  # as a page does while somebody types
                begun = time.perf_counter()
                codes[client.get(reverse("home")).status_code] += 1
                draft = {"title": "How do I reset my lamp?"}
                codes[client.post(reverse("similar"), draft).status_code] += 1
                spent.append((time.perf_counter() - begun) / 2)
        except Exception as error:
            failures.append(type(error).__name__)
        finally:
            connection.close()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield met
    finally:
        ending.set()
        thread.join()
        met |= {"pages": dict(codes), "slowest_pages_seconds": max(spent), "errors": failures}


def drain() -> None:
    """Wait until all is checked."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while OutboxEntry.objects.waiting().exists() and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)


def counted(load: Load) -> dict[str, Any]:
    """What was checked, lost and doubled."""
    of_stage = StageTime.objects.values_list("stage").annotate(Sum("count"))
    times: dict[str, int] = dict(of_stage)
    checked = OutboxEntry.objects.filter(settled_at__isnull=False)
    return {
        "questions": Question.objects.count(),
        "put": load.put,
        "checks": times.get(StageTime.Stage.WRITE, 0),
        "failed_batches": times.get(StageTime.Stage.FAILED, 0),
        "lost": Question.objects.exclude(outbox_entry__in=checked).count(),
        "doubled": {"flags": doubled(Flag, "older", "newer"),
                    "scores": doubled(Score, "older", "newer", "release")},
    }  # fmt: skip


def doubled(model: Any, one: str, other: str, *more: str) -> int:
    """How many rows there are beyond one for each pair, whichever is named first."""
    rows = model.objects.values_list(one, other, *more)
    keys = Counter((frozenset(row[:2]), row[2:]) for row in rows)
    return sum(keys.values()) - len(keys)


def compared(first: Release, second: Release, texts: dict[str, Text]) -> dict[str, Any]:
    """Each score beside what both releases say of its pair now."""
    from dedup.ml.release import open_release  # noqa: PLC0415 - torch, as above

    scorers = {one.pk: open_release(releases.folder_of(one)) for one in (first, second)}
    rows = list(Score.objects.order_by("pk"))
    pairs = [pair_of(texts[row.older_hash], texts[row.newer_hash]) for row in rows]
    said = {pk: scorer.judge(pairs, [row.cosine for row in rows]) for pk, scorer in scorers.items()}
    found = Counter[str]()
    for number, row in enumerate(rows):
        own, (other,) = row.release_id, scorers.keys() - {row.release_id}
        found["scores"] += 1
        found["read_by_the_cross_encoder"] += row.logit is not None
        if is_same(row, said[own][number]):
            found["right"] += 1
        else:
            found["of_the_other" if is_same(row, said[other][number]) else "of_neither"] += 1
        # Else a score would not tell which of the two it is from.
        found["alike"] += is_same(row, said[own][number]) and is_same(row, said[other][number])
    return {
        "scores_by_release": {
            one.name: Score.objects.filter(release=one).count() for one in (first, second)
        },
        "pairs": {
            name: found[name]
            for name in ("scores", "read_by_the_cross_encoder", "right", "of_the_other",
                         "of_neither", "alike")
        },
        "flags_without_their_score": flags_without_score(),
    }  # fmt: skip


def is_same(row: Score, said: Any) -> bool:
    """Whether a score is what was said, within what the order in a batch does."""
    if (row.logit is None) != (said.logit is None):
        return False
    if row.logit is None:  # no logit: the calibration alone
        return bool(abs(row.probability - said.probability) <= 1e-4 * said.probability)
    return bool(abs(row.logit - said.logit) <= NEAR)


def flags_without_score() -> int:
    """Open flags whose probability is not the one that their own release gave the pair."""
    scores = {
        (frozenset([older, newer]), release): probability
        for older, newer, release, probability in Score.objects.values_list(
            "older", "newer", "release", "probability"
        )
    }
    flags = Flag.objects.open().values_list("older", "newer", "release", "probability")
    return sum(
        scores.get((frozenset([older, newer]), release)) != probability
        for older, newer, release, probability in flags
    )


def table(found: dict[str, Any]) -> Table:
    """A line for each figure."""
    drawn = Table(title="Releases switched under load")
    drawn.add_column("figure")
    drawn.add_column("found", justify="right")
    for name, value in found.items():
        drawn.add_row(name.replace("_", " "), str(value))
    return drawn
