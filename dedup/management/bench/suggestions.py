"""How quickly similar questions come while somebody writes: with a worker, without, behind others.

The page that a browser asks while its person types is asked five times a second, in a database of
its own with real workers beside it; both are gone afterwards. The questions are the demo's and this
project's other texts, and above their number made up from two each.
"""

import itertools
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from django.conf import settings
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dedup import releases, suggesting
from dedup.management.bench.queue import PLAIN, person
from dedup.management.bench.shortlist import Corpus, fill, load
from dedup.management.demo import text
from dedup.management.demo.stack import PROCESSES
from dedup.management.scratch import milliseconds, scratch_database
from support import local, outbox, permissions
from support.models import OutboxEntry, Question

SIZES = (320, 100_000)  # questions; the demo has 320
EVERY_SECONDS = 0.2
PATIENCE_SECONDS = 120.0
DRAFTS_OF_ONE = 200
SHARES_TYPED = (0.5, 0.75, 1.0)  # of a title, when its writer pauses
STATES = ("with the worker", "behind a backlog", "without a worker")


def add_arguments(parser: ArgumentParser) -> None:
    """Of `manage.py bench suggestions`."""
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES), help="questions")
    parser.add_argument("--drafts", type=int, default=150, help="asked in each state")
    parser.add_argument("--backlog", type=int, default=1_000, help="questions that wait meanwhile")
    parser.add_argument("--release", default=settings.DEDUP_RELEASE)


def run(console: Console, options: dict[str, Any]) -> tuple[dict[str, Any], list[Table]]:
    """Figures, and the table that shows them."""
    # torch stays out of what the web process can reach
    from dedup.ml.release import open_release  # noqa: PLC0415

    settings.SECRET_KEY = secrets.token_hex()  # there may be none, and no session outlives this
    console.print("reading the project's texts")
    scorer = open_release(settings.DEDUP_ARTIFACTS / options["release"])
    titles = written()
    vectors = scorer.embed(titles).astype(np.float16)
    found: dict[str, Any] = {"backlog": options["backlog"], "sizes": {}}
    with tempfile.TemporaryDirectory() as folder, own_broker(Path(folder)) as broker:
        for rows in sorted(options["rows"]):
            corpus = fill(Corpus(titles[:rows], {}, vectors[:rows]), rows)
            with scratch_database(), override_settings(**PLAIN):
                console.print(f"indexing {rows} questions")
                load(corpus, scorer.embedding_fingerprint)
                permissions.create_roles()
                releases.activate(release=releases.add(options["release"]))
                with Workers(Path(folder), broker) as workers:
                    found["sizes"][rows] = measure(workers, corpus.texts, options, console)
    return found, [table(found)]


def written() -> list[str]:
    """The titles of the demo's questions, then of all others that this project ships."""
    from dedup.ml import clusters  # noqa: PLC0415 - it needs what the web process has not

    names = sorted(file.stem for file in clusters.FOLDER.glob("*.jsonl"))
    titles = [question["title"] for question in text.seed()["questions"]]
    return titles + [one.title for one in clusters.read_clusters(names)]


@contextmanager
def own_broker(folder: Path) -> Iterator[str]:
    """The address of a broker of our own, that this process sends to as well: once, for good."""
    broker = local.start_valkey(folder)
    outbox.app.conf.update(broker_url=broker.url)
    try:
        yield broker.url
    finally:
        broker.stop()


class Workers:
    """Workers on the scratch database; all are ended on exit."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.log = folder / "workers.log"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        given = connection.settings_dict
        server = f"{given['HOST']}:{given['PORT']}" if given["PORT"] else given["HOST"]
        user = f"{given['USER']}:{given['PASSWORD']}" if given["PASSWORD"] else given["USER"]
        self.environ = os.environ | {
            "DATABASE_URL": f"postgresql://{user}@{server}/{given['NAME']}",
            "REDIS_URL": broker,
            "SECRET_KEY": settings.SECRET_KEY,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.running):
            self.stop(name)

    def start(self, name: str, copy: int = 0) -> None:
        """One of the demo's processes; of one that is to run more than once, this copy."""
        words = [f"{name}-{copy}@%h" if copy and w == f"{name}@%h" else w for w in PROCESSES[name]]
        argv = [sys.executable, "-m", *words]
        self.running[f"{name}-{copy}" if copy else name] = local.spawn(
            argv, log=self.log, env=self.environ
        )

    def stop(self, name: str) -> None:
        """Ends it, and waits for that."""
        local.stop(self.running.pop(name))


def measure(
    workers: Workers, titles: list[str], options: dict[str, Any], console: Console
) -> dict[str, Any]:
    """Milliseconds, and how the answers were ranked, in each state."""
    rng = random.Random(23)  # noqa: S311 - no secret
    drafts = [typed(rng.choice(titles), rng) for _ in range(options["drafts"])]
    found: dict[str, Any] = {}

    def asked(state: str) -> None:
        found[state] = ask(writers(state), drafts, console, state)

    workers.start("interactive")
    await_worker(workers.log)
    asked(STATES[0])
    outbox.put_all(
        list(Question.objects.order_by("?").values_list("pk", flat=True)[: options["backlog"]])
    )
    waiting = OutboxEntry.objects.waiting()
    workers.start("checks")
    before = waiting.count()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while waiting.count() == before and time.monotonic() < deadline:  # its networks load
        time.sleep(0.2)
    asked(STATES[1])
    found[STATES[1]]["waiting_afterwards"] = waiting.count()
    workers.stop("checks")
    workers.stop("interactive")
    asked(STATES[2])
    return found


def typed(title: str, rng: random.Random) -> str:
    """A title as far as it is written, at least as many characters as a search needs."""
    return title[: max(10, round(len(title) * rng.choice(SHARES_TYPED)))]


def await_worker(log: Path) -> None:
    """Return once the networks answer. Raises RuntimeError, with the log's end, if they do not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    reader = Question.objects.earliest("pk").asked_by
    while time.monotonic() < deadline:
        suggesting._silent_until = 0.0
        found = suggesting.similar(title="Is anybody there already?", reader=reader)
        if found.ranked_by is suggesting.Ranking.SCORES:
            return
        time.sleep(0.5)
    raise RuntimeError(f"The worker does not answer:\n{log.read_text(errors='replace')[-2000:]}")


def writers(state: str) -> Iterator[Client]:
    """Who writes each draft: another person after so many, for a minute takes no more of one."""
    for number in itertools.count():
        writer = person(permissions.CUSTOMER, name=f"{state} {number}")
        yield from itertools.repeat(writer, DRAFTS_OF_ONE)


def ask(
    clients: Iterator[Client], drafts: list[str], console: Console, state: str
) -> dict[str, Any]:
    """What a browser sends while its person types, five times a second."""
    spent, ranked = [], Counter[str]()
    with noting(ranked):
        for draft in track(drafts, state, console=console, transient=True):
            client = next(clients)
            begun = time.perf_counter()
            answer = client.post(reverse("similar"), {"title": draft})
            spent.append(time.perf_counter() - begun)
            if answer.status_code != 200:
                raise RuntimeError(f"{state}: {answer.status_code}")
            time.sleep(max(0.0, EVERY_SECONDS - spent[-1]))
    return milliseconds(spent) | {"ranked_by": dict(ranked)}


@contextmanager
def noting(ranked: "Counter[str]") -> Iterator[None]:
    """Counts what the suggestions that are made meanwhile were ranked by."""
    similar = suggesting.similar

    def noted(**given: Any) -> suggesting.Suggestions:
        found = similar(**given)
        ranked[found.ranked_by] += 1
        return found

    suggesting.similar = noted
    try:
        yield
    finally:
        suggesting.similar = similar


def table(found: dict[str, Any]) -> Table:
    """A line for each state, columns for each number of questions."""
    drawn = Table(title="Suggestions while writing: milliseconds at the server, p50 / p95")
    drawn.add_column("state")
    for rows in found["sizes"]:
        drawn.add_column(f"{rows:,} questions", justify="right")
        drawn.add_column("ranked by")
    for state in STATES:
        cells = []
        for by_state in found["sizes"].values():
            row = by_state[state]
            cells.append(f"{row['p50_ms']:.0f} / {row['p95_ms']:.0f}")
            cells.append(", ".join(f"{name} {n}" for name, n in sorted(row["ranked_by"].items())))
        drawn.add_row(state, *cells)
    return drawn
