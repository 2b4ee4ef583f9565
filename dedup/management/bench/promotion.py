"""Releases switched under load: whether each score is what the release says that it names.

Real workers check and suggest in a database of their own while one release is put into service and
taken back, again and again. The other release is a twin with another calibration, so that each
score tells which of the two it is from. All is gone afterwards.
"""

import json
import secrets
import shutil
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.db import connection
from django.test import override_settings
from django.urls import reverse
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dedup import releases
from dedup.management.bench.queue import PLAIN, person
from dedup.management.bench.suggestions import Workers, await_worker, noting, own_broker
from dedup.management.demo import text
from dedup.management.scratch import scratch_database
from dedup.ml.artifact import MANIFEST
from dedup.ml.calibration import Calibration
from dedup.models import Release, Score
from support import asking, outbox, permissions
from support.models import OutboxEntry, Product, Question, User

SHIFT = 1.5  # log odds by which the twin finds every pair likelier
SAME = 1e-6
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 120.0


def add_arguments(parser: ArgumentParser) -> None:
    """Of `manage.py bench promotion`."""
    parser.add_argument("--switches", type=int, default=10, help="forward and back, in turns")
    parser.add_argument("--release", default=settings.DEDUP_RELEASE)


def run(console: Console, options: dict[str, Any]) -> tuple[dict[str, Any], list[Table]]:
    """Figures, and the table that shows them."""
    settings.SECRET_KEY = secrets.token_hex()  # there may be none, and no session outlives this
    with (
        tempfile.TemporaryDirectory() as folder,
        own_broker(Path(folder)) as broker,
        scratch_database(),
        override_settings(**PLAIN, DEDUP_RELEASES_FOLDER=folder),
    ):
        permissions.create_roles()
        twin = write_twin(options["release"], Path(folder) / "twin")
        first = releases.activate(release=releases.add(options["release"]))
        second = releases.add(twin.name)
        ask(text.seed()["questions"][:20])
        with Workers(Path(folder), broker) as workers:
            workers.environ["DEDUP_RELEASES_FOLDER"] = folder
            workers.start("checks")
            workers.start("interactive")
            await_worker(workers.log)
            found = switch(first, second, options["switches"], console)
            found |= settled() | mismatches([first, second])
    return found, [table(found)]


def write_twin(name: str, folder: Path) -> Path:
    """The same networks with another calibration, and golden pairs that say so."""
    shutil.copytree(releases.folder_named(name), folder)
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    fitted = raw["calibration"]["coefficients"]
    fitted["bias"] += SHIFT
    golden = raw["golden"]
    chances = Calibration(**fitted).probabilities(
        np.asarray([one["logit"] for one in golden]), np.asarray([one["cosine"] for one in golden])
    )
    for one, chance in zip(golden, chances, strict=True):
        one["probability"] = float(chance)
    raw["name"] = folder.name
    (folder / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")
    return folder


def ask(rows: list[dict[str, str]]) -> list[Question]:
    """Questions of the demo, asked one after the other."""
    product, _ = Product.objects.get_or_create(slug="lamp", defaults={"name": "Lamp"})
    asker, _ = User.objects.get_or_create(username="asker")
    return [
        asking.submit_question(
            product=product, title=row["title"], body=row["body"], audience="public", by=asker
        )
        for row in rows
    ]


def switch(first: Release, second: Release, times: int, console: Console) -> dict[str, Any]:
    """Forward and back while somebody reads, types and asks; seconds until a worker's first score
    by the release that was just put into service."""
    took: list[float] = []
    with Readers() as readers:
        for number in track(range(times), "switching", console=console, transient=True):
            begun = time.monotonic()
            now = releases.roll_back() if number % 2 else releases.activate(release=second)
            # All asked so far, so that there is work on both sides of the switch.
            outbox.put_all(list(Question.objects.values_list("pk", flat=True)))
            took.append(_first_score(now, begun))
    return {
        "switches": times,
        "seconds_until_used": {"median": float(np.median(took)), "most": max(took)},
        **readers.found(),
    }


def _first_score(release: Release, begun: float) -> float:
    """Seconds until a check by this release settles something that was put after the switch."""
    fresh = OutboxEntry.objects.filter(
        settled_at__gt=release.activated_at, checked_by=release.fingerprint
    )
    while not fresh.exists():
        if time.monotonic() > begun + PATIENCE_SECONDS:
            raise RuntimeError(f"No worker took {release} up within {PATIENCE_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - begun


class Readers:
    """Somebody who reads, types and asks all the time, in threads of their own."""

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.ranked: Counter[str] = Counter()
        self.asked = 0
        self.longest = 0.0
        self.failures: list[str] = []
        self.ending = threading.Event()
        self.client = person(permissions.CUSTOMER)
        self.rows = iter(text.seed()["questions"][20:])
        self.threads = [
            threading.Thread(target=self._while, args=[each]) for each in (self._read, self._ask)
        ]

    def __enter__(self) -> "Readers":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def _while(self, act: Any) -> None:
        try:
            while not self.ending.wait(0.2):
                act()
        except Exception as error:
            self.failures.append(repr(error))
        finally:
            connection.close()

    def _read(self) -> None:
        with noting(self.ranked):
            for answer in (
                lambda: self.client.get(reverse("home")),
                lambda: self.client.post(reverse("similar"), {"title": "How do I reset my lamp?"}),
            ):
                begun = time.perf_counter()
                self.codes[answer().status_code] += 1
                self.longest = max(self.longest, time.perf_counter() - begun)

    def _ask(self) -> None:
        row = next(self.rows, None)
        if row:
            ask([row])
            self.asked += 1
        time.sleep(1)

    def found(self) -> dict[str, Any]:
        """What they met."""
        return {
            "asked": self.asked,
            "answers_of_the_web": dict(self.codes),
            "longest_answer_seconds": self.longest,
            "suggestions_ranked_by": dict(self.ranked),
            "errors": self.failures,
        }


def settled() -> dict[str, Any]:
    """Waits until all is checked; what stayed unchecked, and in quarantine."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while OutboxEntry.objects.waiting().exists() and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return {
        "questions": Question.objects.count(),
        "unchecked": OutboxEntry.objects.unchecked().count(),
        "quarantined": OutboxEntry.objects.quarantined().count(),
    }


def mismatches(both: list[Release]) -> dict[str, Any]:
    """Scores by release, and how many are not what that release says of such a pair."""
    scores, wrong = {}, 0
    for release in both:
        fitted = Calibration(**release.manifest["calibration"]["coefficients"])
        rows = list(read_scores(release))
        said = np.asarray([probability for _, _, probability in rows])
        logits, cosines = (np.asarray([row[i] for row in rows], float) for i in (0, 1))
        scores[release.name] = len(rows)
        if rows:
            wrong += int((np.abs(fitted.probabilities(logits, cosines) - said) > SAME).sum())
    return {"scores": scores, "mismatched": wrong}


def read_scores(release: Release) -> Iterator[tuple[float, float, float]]:
    """Logit, cosine and probability of each pair that its cross-encoder read."""
    rows = Score.objects.filter(release=release, logit__isnull=False)
    yield from rows.values_list("logit", "cosine", "probability")


def table(found: dict[str, Any]) -> Table:
    """A line for each figure."""
    drawn = Table(title="Releases switched under load")
    drawn.add_column("figure")
    drawn.add_column("found", justify="right")
    for name, value in found.items():
        drawn.add_row(name.replace("_", " "), str(value))
    return drawn
