"""How much of what is known the shortlist finds among many questions, and how quickly.

Known mates are the duplicate links of the Quora training pairs; every question that has one is
indexed. All of it happens in a database of its own, which is dropped afterwards.
"""

import gzip
import hashlib
import json
import random
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.db import connection
from django.utils import timezone
from pgvector.psycopg import register_vector
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from dedup import shortlist
from dedup.management.scratch import milliseconds, scratch_database
from dedup.ml.text import model_input, text_hash
from dedup.models import DIMENSIONS
from support.models import Product, Question, User
from support.models.question import QuestionQuerySet

FILE = "qqp_train.jsonl.gz"
DEPTHS = (10, 50, 100)
FINGERPRINT = "bench"
BLOCK = 20_000  # rows that are held in full precision at once
RARE = {"one in a hundred": 0.01, "one in a thousand": 0.001}  # products, and how many have them
INDEX_MEMORY = "2GB"  # else an index of a million rows is built from disk


@dataclass(frozen=True)
class Corpus:
    """Questions, the links between duplicates by row number, and a unit vector for each.

    The vectors are of half precision, as they are stored: those of a million take 0.8 GB.
    """

    texts: list[str]
    mates: dict[int, set[int]]
    vectors: np.ndarray


@dataclass(frozen=True)
class Query:
    """A question that is asked again, as it stands or spoilt."""

    row: int
    text: str
    vector: np.ndarray


def add_arguments(parser: ArgumentParser) -> None:
    """Of `manage.py bench shortlist`."""
    parser.add_argument("--data", type=Path, required=True, help=f"folder of {FILE}")
    parser.add_argument("--release", default=settings.DEDUP_RELEASE, help="whose bi-encoder")
    parser.add_argument("--rows", type=int, default=0, help="filled up to with made-up questions")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="a folder that keeps the vectors for next time")


def run(console: Console, options: dict[str, Any]) -> tuple[dict[str, Any], list[Table]]:
    """Figures, and the tables that show them."""
    # torch stays out of what the web process can reach
    from dedup.ml.biencoder import BiEncoder  # noqa: PLC0415

    folder = Path(options["release"])
    folder = folder if folder.is_dir() else settings.DEDUP_ARTIFACTS / options["release"]
    bi = BiEncoder(folder / "bi-encoder")
    embed = kept(bi.embed, options["keep"], hashed=str(folder.resolve()), console=console)
    texts, mates = linked(options["data"] / FILE)
    vectors = embed([model_input(text) for text in texts]).astype(np.float16)
    corpus = Corpus(texts, mates, vectors)
    filled = fill(corpus, options["rows"])
    with scratch_database():
        console.print(f"indexing {len(filled.texts)} questions")
        seconds = load(filled)
        found = measure(filled, bi.embed, options["queries"], console)
    found["index_seconds"] = seconds
    return found, tables(found)


def linked(file: Path) -> tuple[list[str], dict[int, set[int]]]:
    """Every different question of a duplicate link, case aside, and who is linked with whom."""
    at: dict[str, int] = {}
    texts: list[str] = []
    mates: dict[int, set[int]] = {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["label"] == 1]
    for row in rows:
        ends = []
        for text in (row["q1"], row["q2"]):
            if text.lower() not in at:
                at[text.lower()] = len(texts)
                texts.append(text)
            ends.append(at[text.lower()])
        one, other = ends
        if one != other:
            mates.setdefault(one, set()).add(other)
            mates.setdefault(other, set()).add(one)
    return texts, mates


def kept(
    embed: Callable[[Sequence[str]], np.ndarray], folder: Path | None, *, hashed: str,
    console: Console,
) -> Callable[[Sequence[str]], np.ndarray]:  # fmt: skip
    """`embed` with a progress bar, its vectors written into `folder` for the next time."""

    def embed_once(texts: Sequence[str]) -> np.ndarray:
        key = hashlib.sha256("\0".join([hashed, *texts]).encode()).hexdigest()[:16]
        file = folder / f"vectors-{key}.npy" if folder else None
        if file and file.exists():
            return np.load(file, allow_pickle=False)
        starts = range(0, len(texts), 1_000)
        parts = [
            embed(texts[start : start + 1_000])
            for start in track(starts, "embedding", console=console, transient=True)
        ]
        vectors = np.concatenate(parts)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, vectors)
        return vectors

    return embed_once


def fill(corpus: Corpus, rows: int) -> Corpus:
    """The corpus with made-up questions up to `rows`: the words of two, a point between them."""
    more = rows - len(corpus.texts)
    if more <= 0:
        return corpus
    rng = np.random.default_rng(5)
    ones, others = rng.integers(len(corpus.texts), size=(2, more))
    texts = []
    for one, other in zip(ones, others, strict=True):
        words, rest = corpus.texts[one].split(), corpus.texts[other].split()
        texts.append(" ".join([*words[: (len(words) + 1) // 2], *rest[len(rest) // 2 :]]))
    vectors = np.empty((rows, DIMENSIONS), dtype=np.float16)
    vectors[: len(corpus.texts)] = corpus.vectors
    for start in range(0, more, BLOCK):
        part = slice(start, start + BLOCK)
        made = corpus.vectors[ones[part]] + 0.5 * corpus.vectors[others[part]].astype(np.float32)
        made += rng.normal(scale=0.3 / DIMENSIONS**0.5, size=made.shape)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        vectors[len(corpus.texts) + start :][: len(made)] = made
    return Corpus(corpus.texts + texts, corpus.mates, vectors)


def load(corpus: Corpus, fingerprint: str = FINGERPRINT) -> float:
    """Writes the corpus into the tables by binary COPY; returns seconds, indexes included.

    Row number n becomes question n + 1. The products in `RARE` get their share of all rows.
    """
    begun = time.perf_counter()
    asker = User.objects.create(username="bench")
    common = Product.objects.create(slug="all-else", name="all else")
    rare = {
        Product.objects.create(slug=name.replace(" ", "-"), name=name).pk: share
        for name, share in RARE.items()
    }
    draws = np.random.default_rng(9).random(len(corpus.texts))
    products = np.full(len(corpus.texts), common.pk)
    at = 0.0
    for pk, share in rare.items():
        products[(draws >= at) & (draws < at + share)] = pk
        at += share
    connection.ensure_connection()
    register_vector(connection.connection)
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('maintenance_work_mem', %s, false)", [INDEX_MEMORY])
        cursor.execute("DROP INDEX embedding_hnsw")
        now = timezone.now()
        columns = "id, product_id, title, body, audience, asked_by_id, asked_at, version"
        with cursor.copy(f"COPY support_question ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(
                ["int8", "int8", "varchar", "text", "varchar", "int8", "timestamptz", "int4"]
            )
            for n, text in enumerate(corpus.texts):
                copy.write_row(
                    (n + 1, int(products[n]), text[:200], "", "public", asker.pk, now, 1)
                )
        columns = "question_id, vector, text_hash, fingerprint, embedded_at"
        with cursor.copy(f"COPY dedup_embedding ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "halfvec", "varchar", "varchar", "timestamptz"])
            for n, (text, vector) in enumerate(zip(corpus.texts, corpus.vectors, strict=True)):
                read = text_hash(model_input(text[:200], ""))
                copy.write_row((n + 1, shortlist.point(vector), read, fingerprint, now))
        cursor.execute("SELECT setval('support_question_id_seq', %s)", [len(corpus.texts)])
        cursor.execute(
            "CREATE INDEX embedding_hnsw ON dedup_embedding USING hnsw"
            " (vector halfvec_cosine_ops) WITH (m = 16, ef_construction = 64)"
        )
        cursor.execute("VACUUM ANALYZE support_question")  # words too are indexed by then
        cursor.execute("VACUUM ANALYZE dedup_embedding")
    return time.perf_counter() - begun


def measure(
    corpus: Corpus, embed: Callable[[Sequence[str]], np.ndarray], count: int, console: Console
) -> dict[str, Any]:
    """Recall of known mates for questions plain and spoilt; neighbours found of the exact ones."""
    rng = random.Random(17)  # noqa: S311 - no secret
    rows = rng.sample(sorted(corpus.mates), min(count, len(corpus.mates)))
    found: dict[str, Any] = {"rows": len(corpus.texts), "queries": len(rows), "recall": {}}
    spoilt: dict[str, Callable[[str, random.Random], str]] = {
        "as asked": as_it_is, "with typos": with_typos, "half of the words": with_words_dropped,
    }  # fmt: skip
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("asking", total=(len(spoilt) + len(RARE) + 2) * len(rows))

        def step() -> None:
            progress.advance(task)

        plain: list[Query] = []
        for name, spoil in spoilt.items():
            texts = [spoil(corpus.texts[row], rng) for row in rows]
            vectors = embed([model_input(text) for text in texts])
            queries = [Query(*each) for each in zip(rows, texts, vectors, strict=True)]
            plain = plain or queries
            found["recall"][name] = recall(corpus, queries, step)
        found["of_exact"] = {"all": of_exact(corpus, plain, None, step)}
        for name in RARE:
            product = Product.objects.get(name=name)
            if product.questions.count() > 1:
                found["of_exact"][name] = of_exact(corpus, plain, product, step)
        spent = []
        for query in plain:
            begun = time.perf_counter()
            draw(query)
            spent.append(time.perf_counter() - begun)
            step()
        found["draw"] = milliseconds(spent)
    return found


def others_than(query: Query) -> QuestionQuerySet:
    """What a check compares a question with."""
    own_thread = list(Question.objects.of_threads(query.row + 1).values_list("pk", flat=True))
    return Question.objects.exclude(pk__in=own_thread)


def draw(query: Query) -> list[shortlist.Candidate]:
    """The shortlist as a check draws it."""
    return shortlist.draw(
        others_than(query), text=query.text, vector=query.vector, fingerprint=FINGERPRINT,
        limit=settings.DEDUP_SHORTLIST,
    )  # fmt: skip


def recall(
    corpus: Corpus, queries: Sequence[Query], step: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """Of the mates of a question, the share among the first 10, 50, 100, mean over questions;
    and the share of the questions of which at least one mate is among the first 50 (`any`)."""
    shares: dict[str, dict[int, list[float]]] = {}
    spent: dict[str, list[float]] = {}
    for query in queries:
        readable = others_than(query)
        wanted = {mate + 1 for mate in corpus.mates[query.row]}
        begun = time.perf_counter()
        near = shortlist.by_vector(readable, query.vector, FINGERPRINT, DEPTHS[-1])
        between = time.perf_counter()
        worded = shortlist.by_words(readable, query.text, DEPTHS[-1])
        spent.setdefault("vectors", []).append(between - begun)
        spent.setdefault("words", []).append(time.perf_counter() - between)
        for depth in DEPTHS:
            ways = {
                "vectors": near[:depth], "words": worded[:depth],
                "both": shortlist.fuse(near=near[:depth], worded=worded[:depth])[:depth],
            }  # fmt: skip
            for way, ids in ways.items():
                share = len(wanted & set(ids)) / len(wanted)
                shares.setdefault(way, {}).setdefault(depth, []).append(share)
        step()
    return {
        way: {str(depth): statistics.mean(values) for depth, values in by_depth.items()}
        | {"any": statistics.mean(share > 0 for share in by_depth[DEPTHS[1]])}
        | (milliseconds(spent[way]) if way in spent else {})
        for way, by_depth in shares.items()
    }


def of_exact(
    corpus: Corpus, queries: Sequence[Query], product: Product | None, step: Callable[[], None]
) -> dict[str, float]:
    """Share of the nearest neighbours, among the questions about a product, that are found."""
    about = {"product": product.pk} if product else {}
    ids = Question.objects.filter(**about).order_by("pk").values_list("pk", flat=True)
    allowed = np.fromiter(ids.iterator(), dtype=np.int64)
    limit = min(settings.DEDUP_SHORTLIST, len(allowed) - 1)
    shares, spent = [], []
    for query, wanted in zip(queries, nearest(corpus, queries, allowed, limit), strict=True):
        readable = others_than(query).filter(**about)
        begun = time.perf_counter()
        near = shortlist.by_vector(readable, query.vector, FINGERPRINT, limit)
        spent.append(time.perf_counter() - begun)
        shares.append(len(wanted & set(near)) / limit)
        step()
    return {"rows": len(allowed), "share": statistics.mean(shares)} | milliseconds(spent)


def nearest(
    corpus: Corpus, queries: Sequence[Query], allowed: np.ndarray, limit: int
) -> list[set[int]]:
    """For each query the ids of the nearest of the allowed ones, all distances computed."""
    wanted = np.stack([query.vector for query in queries])
    own = np.asarray([[query.row + 1] for query in queries])
    ids = np.zeros((len(queries), 0), dtype=np.int64)
    likeness = np.zeros((len(queries), 0), dtype=np.float32)
    for start in range(0, len(allowed), BLOCK):
        part = allowed[start : start + BLOCK]
        rows = corpus.vectors[part - 1].astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        more = np.where(part == own, -2.0, wanted @ rows.T)
        likeness = np.concatenate([likeness, more], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(part, more.shape)], axis=1)
        best = np.argpartition(-likeness, min(limit, likeness.shape[1] - 1), axis=1)[:, :limit]
        ids = np.take_along_axis(ids, best, axis=1)
        likeness = np.take_along_axis(likeness, best, axis=1)
    return [set(row.tolist()) for row in ids]


def as_it_is(text: str, rng: random.Random) -> str:
    """The text."""
    return text


def with_typos(text: str, rng: random.Random) -> str:
    """Two neighbouring letters change places in every third word or so."""
    words = text.split()
    for n, word in enumerate(words):
        if len(word) > 3 and rng.random() < 1 / 3:
            at = rng.randrange(len(word) - 1)
            words[n] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def with_words_dropped(text: str, rng: random.Random) -> str:
    """About half of the words, at least one, in their order."""
    words = text.split()
    left = [word for word in words if rng.random() < 1 / 2]
    return " ".join(left or words[:1])


def tables(found: dict[str, Any]) -> list[Table]:
    """Recall, neighbours found of the exact ones, and time."""
    title = f"Known mates found among {found['rows']} questions, {found['queries']} asked"
    mates = Table(title=title)
    depths = [f"in {depth}" for depth in DEPTHS]
    for name in ("question", "by", *depths, f"any in {DEPTHS[1]}", "p50 ms", "p95 ms"):
        mates.add_column(name)
    for name, ways in found["recall"].items():
        for way, row in ways.items():
            shares = [f"{row[key]:.3f}" for key in (*map(str, DEPTHS), "any")]
            mates.add_row(name, way, *shares, *_spent(row))
    exact = Table(title="Nearest neighbours found of the exact ones")
    for name in ("readable", "rows", "share", "p50 ms", "p95 ms"):
        exact.add_column(name)
    for name, row in found["of_exact"].items():
        exact.add_row(name, str(row["rows"]), f"{row['share']:.3f}", *_spent(row))
    whole = Table(title="The whole shortlist")
    for name in ("candidates", "p50 ms", "p95 ms", "load and index, s"):
        whole.add_column(name)
    seconds = f"{found['index_seconds']:.0f}" if "index_seconds" in found else ""
    whole.add_row(str(settings.DEDUP_SHORTLIST), *_spent(found["draw"]), seconds)
    return [mates, exact, whole]


def _spent(row: dict[str, float]) -> list[str]:
    return [f"{row[key]:.1f}" if key in row else "" for key in ("p50_ms", "p95_ms")]
