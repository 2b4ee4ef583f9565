"""How a backfill of many questions goes: planted duplicates found, workers killed on the way, time.

Real questions with labelled pairs are imported into a database of its own, so many of the pairs
that are duplicates as one wants; of all others at most one side is there. A real worker checks them
in the background, is killed with all its children and started again; meanwhile somebody asks now
and then. Both are gone afterwards.
"""

import gzip
import json
import os
import random
import secrets
import signal
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from django.test import override_settings
from django.urls import reverse
from django.utils import timezone
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dedup import backfilling, queue, releases
from dedup.management.bench.queue import PLAIN, person
from dedup.management.bench.suggestions import Workers, own_broker
from dedup.management.following import COLUMNS
from dedup.management.scratch import milliseconds, scratch_database
from dedup.ml.pairs import Scorer, SettledBy
from dedup.models import Flag, Job, Score
from support import asking, importing, permissions
from support.models import OutboxEntry, Product, Question, User

SOURCE = "backfill.example"
PAIRS = "qqp_dev.jsonl.gz"
SHARE_PLANTED = 0.06  # planted pairs for each question
LOOK_SECONDS = 0.5
ASK_EVERY_SECONDS = 45.0
RECOVERY_SECONDS = 90.0  # after a kill: a new worker loads its networks
PAGES = 15  # of the queue, timed
FOREMOST = 20  # cards that the queue begins with


@dataclass
class Corpus:
    """Questions to import, and what is known of pairs of them (places in `texts`)."""

    texts: list[str] = field(default_factory=list)
    planted: set[frozenset[int]] = field(default_factory=set)
    others: set[frozenset[int]] = field(default_factory=set)  # labelled: no duplicates


def add_arguments(parser: ArgumentParser) -> None:
    """Of `manage.py bench backfill`."""
    parser.add_argument("--data", type=Path, required=True, help=f"the folder with {PAIRS}")
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=2, help="of the worker, on the way")
    parser.add_argument("--ask", type=int, default=30, help="questions asked meanwhile, at most")
    parser.add_argument("--again", action="store_true", help="then forget scores and go again")
    parser.add_argument("--release", default=settings.DEDUP_RELEASE)


def run(console: Console, options: dict[str, Any]) -> tuple[dict[str, Any], list[Table]]:
    """Figures, and the table that shows them."""
    settings.SECRET_KEY = secrets.token_hex()  # there may be none, and no session outlives this
    # torch stays out of what the web process can reach
    from dedup.ml.release import open_release  # noqa: PLC0415

    scorer = open_release(settings.DEDUP_ARTIFACTS / options["release"])
    corpus = read(options["data"] / PAIRS, options["questions"])
    with (
        tempfile.TemporaryDirectory() as folder,
        own_broker(Path(folder)) as broker,
        scratch_database(),
        override_settings(**PLAIN),
    ):
        permissions.create_roles()
        releases.activate(release=releases.add(options["release"]))
        ids = stored(corpus)
        with Workers(Path(folder), broker) as workers:
            found = watch(workers, scorer, options, console)
            found |= against(corpus, ids) | lost_and_doubled(ids) | desk()
            if options["again"]:
                found["again"] = go_again(console)
    return found, [table(found)]


def read(file: Path, number: int) -> Corpus:
    """Pairs with their labels, thinned to `number` questions."""
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    random.Random(7).shuffle(rows)  # noqa: S311 - no secret
    pairs = [((clean(row["q1"]), clean(row["q2"])), bool(row["label"])) for row in rows]
    texts: dict[str, int] = {}
    same = backfilling.components(_numbered(pairs, texts))
    cluster = {pk: place for place, members in enumerate(same) for pk in members}
    corpus, places, taken = Corpus(), {}, set()
    planted: list[tuple[str, str]] = []

    def take(*chosen: str) -> None:
        for one in chosen:
            places[one] = len(corpus.texts)
            corpus.texts.append(one)
            taken.add(cluster.get(texts[one], one))

    def is_new(one: str) -> bool:
        return one not in places and cluster.get(texts[one], one) not in taken

    for pair, is_same in pairs:
        if is_same and len(planted) < number * SHARE_PLANTED and all(map(is_new, pair)):
            take(*pair)
            planted.append(pair)
    for label in (False, True):  # labelled others first, then one side of what is left
        for pair, is_same in pairs:
            for one in pair[: 1 if is_same else 2]:
                if is_same == label and len(corpus.texts) < number and is_new(one):
                    take(one)
    # Checked in any order: the first ones meet few others.
    random.Random(8).shuffle(corpus.texts)  # noqa: S311 - no secret
    places = {one: place for place, one in enumerate(corpus.texts)}
    corpus.planted = {frozenset(places[one] for one in pair) for pair in planted}
    corpus.others = {
        frozenset(places[one] for one in pair)
        for pair, is_same in pairs
        if not is_same and all(one in places for one in pair)
    }
    return corpus


def clean(text: str) -> str:
    """One line, as a title has it."""
    return " ".join(text.split())


def _numbered(
    pairs: Sequence[tuple[tuple[str, str], bool]], texts: dict[str, int]
) -> list[tuple[int, int]]:
    for pair, _ in pairs:
        for one in pair:
            texts.setdefault(one, len(texts))
    return [(texts[a], texts[b]) for (a, b), is_same in pairs if is_same and a != b]


def stored(corpus: Corpus) -> list[int]:
    """Import all, as `import_questions` does; ids by place."""
    rows = [
        json.dumps({"site": SOURCE, "id": str(place), "title": one}).encode()
        for place, one in enumerate(corpus.texts)
    ]
    importing.import_questions(rows)
    known = dict(Question.objects.values_list("source", "pk"))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE support_question")
    return [known[f"{SOURCE}:{place}"] for place in range(len(corpus.texts))]


def watch(
    workers: Workers, scorer: Scorer, options: dict[str, Any], console: Console
) -> dict[str, Any]:
    """Follow a backfill to its end, and disturb it on the way."""
    cost = backfilling.estimate(
        Job(kind=Job.Kind.BACKFILL), release=releases.active(), scorer=scorer
    )
    console.print(f"{cost.questions} questions, about {cost.minutes:.1f} minutes")
    job = backfilling.begin(kind=Job.Kind.BACKFILL, by=None)
    kills = [number / (options["kills"] + 1) for number in range(1, options["kills"] + 1)]
    held: list[int] = []
    asked: dict[int, bool] = {}  # whether a worker ran then
    asked_at = time.monotonic()
    killed_at = -RECOVERY_SECONDS
    workers.start("checks")
    begun = time.monotonic()
    for _ in steps(job, console):
        share = job.done / job.total if job.total else 0.0
        if kills and share >= kills[0]:
            kills.pop(0)
            held.append(kill(workers))
            killed_at = time.monotonic()
            workers.start("checks")
        is_time = time.monotonic() - asked_at > ASK_EVERY_SECONDS
        if share and is_time and len(asked) < options["ask"] and not job.is_finished:
            asked_at = time.monotonic()
            asked[ask(len(asked))] = asked_at > killed_at + RECOVERY_SECONDS
    seconds = time.monotonic() - begun
    waits = {
        entry.question_id: (entry.settled_at - entry.put_at).total_seconds()
        for entry in OutboxEntry.objects.filter(question__in=asked)
        if entry.settled_at
    }
    undisturbed = [wait for pk, wait in waits.items() if asked[pk]]
    read = Score.objects.exclude(settled_by=SettledBy.COSINE).count()
    scored = Score.objects.count()
    return {
        "estimated_seconds": round(cost.seconds, 1),
        "questions": options["questions"],
        "asked_meanwhile": len(asked),
        "submit_to_settled": milliseconds(list(waits.values())) if waits else None,
        "with_a_worker_running": milliseconds(undisturbed) if undisturbed else None,
        "kills": len(held),
        "held_when_killed": held,
        "seconds": round(seconds, 1),
        "pairs_scored": scored,
        "pairs_read": read,
        "pairs_per_second": round(scored / seconds, 1),
        "job": job.result,
    }


def steps(job: Job, console: Console) -> Iterator[Job]:
    """A job, again and again until it is finished, under a bar."""
    with Progress(*COLUMNS, console=console) as progress:
        bar, said = progress.add_task(job.get_kind_display(), total=None), 0
        while not job.is_finished:
            time.sleep(LOOK_SECONDS)
            backfilling.tend()
            job.refresh_from_db()
            progress.update(bar, completed=job.done, total=job.total or None)
            if not console.is_terminal and (percent := job.percent or 0) // 5 > said // 5:
                said = percent
                console.print(f"{timezone.now():%H:%M:%S} {percent} %, {job.done} questions")
            yield job


def kill(workers: Workers) -> int:
    """End the worker in the middle of a batch, and all of its children; how many it held."""
    waiting = OutboxEntry.objects.waiting()
    held = waiting.filter(token__isnull=False)
    while waiting.exists() and not held.exists():
        time.sleep(0.01)
    process = workers.running.pop("checks")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return held.count()


def ask(number: int) -> int:
    """Somebody asks a question of their own; its id."""
    asker, _ = User.objects.get_or_create(username="somebody")
    product = Product.objects.order_by("pk").first()
    assert product
    title = f"How do I pair remote control number {number} with my lamp?"
    return asking.submit_question(
        product=product, title=title, body="", audience="public", by=asker
    ).pk


def against(corpus: Corpus, ids: Sequence[int]) -> dict[str, Any]:
    """What was found, held against what is known."""
    planted = {frozenset(ids[place] for place in pair) for pair in corpus.planted}
    others = {frozenset(ids[place] for place in pair) for pair in corpus.others}
    flags = [
        (frozenset((older, newer)), probability)
        for older, newer, probability in Flag.objects.flagged()
        .filter(older__in=ids, newer__in=ids)
        .order_by("-probability", "pk")
        .values_list("older", "newer", "probability")
    ]
    scored = {frozenset(pair) for pair in Score.objects.values_list("older", "newer")}
    release = releases.active()

    def share(pairs: Sequence[frozenset[int]]) -> dict[str, Any]:
        right, wrong = sum(p in planted for p in pairs), sum(p in others for p in pairs)
        known = right + wrong
        return {
            "pairs": len(pairs),
            "planted": right,
            "labelled_others": wrong,
            "unknown": len(pairs) - known,
            "precision_where_known": round(right / known, 4) if known else None,
            "recall": round(right / len(planted), 4) if planted else None,
        }

    return {
        "planted": len(planted),
        "labelled_others": len(others),
        "shortlisted": len(planted & scored),
        "flagged": share([pair for pair, _ in flags]),
        "likely": share([pair for pair, p in flags if p >= release.sure_threshold]),
        "top": share([pair for pair, _ in flags[: len(planted)]]),
    }


def lost_and_doubled(ids: Sequence[int]) -> dict[str, int]:
    """Questions that nobody checked, and pairs of which there are two rows."""
    settled = OutboxEntry.objects.filter(settled_at__isnull=False, question__in=ids)
    checked = settled.exclude(checked_by="")
    doubled = {}
    for model in (Flag, Score):
        pairs = [frozenset(pair) for pair in model.objects.values_list("older", "newer")]
        doubled[f"doubled_{model.__name__.lower()}s"] = len(pairs) - len(set(pairs))
    return {"lost": len(ids) - checked.count(), **doubled}


def desk() -> dict[str, Any]:
    """How quickly the queue opens now, and what it begins with."""
    client = person(permissions.AGENT)
    spent: dict[str, list[float]] = {"queue": [], "first card": []}
    for _ in range(PAGES):
        for name, address in (("queue", "review_queue"), ("first card", "review_next")):
            begun = time.perf_counter()
            client.get(reverse(address), follow=True)
            spent[name].append(time.perf_counter() - begun)
    waiting = queue.queue(User.objects.get(username="bench-agent"))
    clusters = [set(members) for members in backfilling.clusters(waiting)]
    larger = [members for members in clusters if len(members) > 2]
    in_larger = [any({*flag.question_ids} <= members for members in larger) for flag in waiting]
    sizes = [len(members) for members in clusters]
    return {
        "desk": {name: milliseconds(values) for name, values in spent.items()},
        "open": len(waiting),
        "in_clusters_of_more": sum(in_larger),
        "in_clusters_of_the_foremost": sum(in_larger[:FOREMOST]),
        "cluster_sizes": {size: sizes.count(size) for size in sorted(set(sizes))},
    }


def go_again(console: Console) -> dict[str, Any]:
    """All once more, with all vectors there and no score: each pair is met from both sides."""
    Score.objects.all().delete()
    job = backfilling.begin(kind=Job.Kind.RECHECK, everything=True, by=None, now=timezone.now())
    begun = time.monotonic()
    for _ in steps(job, console):
        pass
    number = Question.objects.count()
    met = number * min(settings.DEDUP_SHORTLIST, number - 1)
    scored = Score.objects.count()
    return {
        "met": met,
        "scored": scored,
        "saved": round(1 - scored / met, 4),
        "seconds": round(time.monotonic() - begun, 1),
    }


def table(found: dict[str, Any]) -> Table:
    """A figure in each line."""
    drawn = Table(title=f"Backfill of {found['questions']:,} questions")
    drawn.add_column("figure")
    drawn.add_column("value", justify="right")
    for name, value in found.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        for part, one in rows:
            drawn.add_row(f"{name} {part}".strip().replace("_", " "), str(one))
    return drawn
