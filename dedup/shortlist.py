"""Question -> candidates, in SQL alone: neighbours by vector and by rare words, ranks fused.

Who may be compared is decided before anything is ranked. Where few rows may, their distances are
all computed; an index walk that filters afterwards finds next to nothing there (measured: 3 % of
the true neighbours where a filter keeps 1.4 % of the rows).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.db import connection, transaction
from pgvector import HalfVector

from support.models import Question
from support.models.question import QuestionQuerySet

EXACT_BELOW = 20_000  # rows; up to here an exact scan takes a few milliseconds
EF_SEARCH = 200
RARE_WORDS = 6
FUSION = 60  # reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)


@dataclass(frozen=True)
class Candidate:
    """A question worth scoring, and how near it is; None where it has no vector that fits."""

    question_id: int
    root_id: int
    cosine: float | None
    text_hash: str = ""  # of the text that its vector was made of


def draw(
    readable: QuestionQuerySet,
    *,
    text: str,
    vector: np.ndarray | None = None,
    fingerprint: str = "",
    limit: int,
) -> list[Candidate]:
    """Return up to `limit` of the `readable` questions that resemble a text, likeliest first.

    Without a vector, by words alone. Only vectors of the bi-encoder with this `fingerprint` are
    compared: those of another lie in another space.
    """
    rankings = [by_words(readable, text, limit)]
    if vector is not None:
        rankings.append(by_vector(readable, vector, fingerprint, limit))
    return _with_cosine(fuse(rankings)[:limit], vector, fingerprint)


def fuse(rankings: Iterable[Sequence[int]]) -> list[int]:
    """Return the ids of all rankings in the order of the sum of their reciprocal ranks."""
    weights: dict[int, float] = {}
    for ranking in rankings:
        for rank, pk in enumerate(ranking, 1):
            weights[pk] = weights.get(pk, 0.0) + 1 / (FUSION + rank)
    return sorted(weights, key=lambda pk: (-weights[pk], pk))


def point(vector: np.ndarray) -> HalfVector:
    """A vector as it is stored and compared."""
    return HalfVector(vector.tolist())


def by_vector(
    readable: QuestionQuerySet, vector: np.ndarray, fingerprint: str, limit: int
) -> list[int]:
    """Ids of the questions whose vectors are nearest, nearest first."""
    ids, params = readable.order_by().values("pk").query.sql_with_params()
    place = point(vector).to_text()
    few = f"SELECT count(*) FROM ({ids} LIMIT {EXACT_BELOW + 1}) AS counted"  # noqa: S608
    if _rows(few, params)[0][0] <= EXACT_BELOW:
        # MATERIALIZED keeps the planner from walking the index and filtering afterwards.
        query = f"""
            WITH near AS MATERIALIZED (
                SELECT question_id, vector <=> %s::halfvec AS distance FROM dedup_embedding
                WHERE fingerprint = %s AND question_id IN ({ids})
            ) SELECT question_id FROM near ORDER BY distance, question_id LIMIT %s"""  # noqa: S608
        return [row[0] for row in _rows(query, [place, fingerprint, *params, limit])]
    query = f"""
        SELECT question_id FROM dedup_embedding
        WHERE fingerprint = %s AND question_id IN ({ids})
        ORDER BY vector <=> %s::halfvec LIMIT %s"""  # noqa: S608
    with transaction.atomic(savepoint=False):  # outside of one the settings would not hold
        _rows(
            "SELECT set_config('hnsw.ef_search', %s, true),"
            " set_config('hnsw.iterative_scan', 'relaxed_order', true)",
            [str(max(EF_SEARCH, limit))],
        )
        return [row[0] for row in _rows(query, [fingerprint, *params, place, limit])]


def by_words(readable: QuestionQuerySet, text: str, limit: int) -> list[int]:
    """Ids of the questions that share the rarest words of a text, likeliest first."""
    rare = _rare_lexemes(text)
    if not rare:
        return []
    ids, params = readable.order_by().values("pk").query.sql_with_params()
    query = f"""
        SELECT id FROM support_question, (
            SELECT string_agg(quote_literal(lexeme), ' | ')::tsquery AS wanted
            FROM unnest(%s::text[]) AS lexeme
        ) AS rare
        WHERE words @@ wanted AND id IN ({ids})
        ORDER BY ts_rank(words, wanted, 1) DESC, id LIMIT %s"""  # noqa: S608
    return [row[0] for row in _rows(query, [rare, *params, limit])]


def _rare_lexemes(text: str) -> list[str]:
    """The rarest words of a text, by the planner's statistics: frequent ones find everything."""
    query = """
        SELECT lexeme FROM unnest(to_tsvector('english', %s)) AS word
        LEFT JOIN (
            SELECT unnest(known) AS common,
                   unnest(most_common_elem_freqs[1:cardinality(known)]) AS share
            FROM pg_stats, LATERAL (SELECT most_common_elems::text::text[]) AS elements (known)
            WHERE tablename = 'support_question' AND attname = 'words'
        ) AS statistics ON common = lexeme
        ORDER BY coalesce(share, 0), length(lexeme) DESC, lexeme LIMIT %s"""
    return [row[0] for row in _rows(query, [text, RARE_WORDS])]


def _with_cosine(
    ids: Sequence[int], vector: np.ndarray | None, fingerprint: str
) -> list[Candidate]:
    roots = {
        pk: canonical or pk
        for pk, canonical in Question.objects.filter(pk__in=ids).values_list("pk", "canonical_id")
    }
    cosines: dict[int, tuple[float, str]] = {}
    if vector is not None:
        place = point(vector).to_text()
        query = """
            SELECT question_id, 1 - (vector <=> %s::halfvec), text_hash FROM dedup_embedding
            WHERE fingerprint = %s AND question_id = ANY(%s)"""
        rows = _rows(query, [place, fingerprint, list(ids)])
        cosines = {pk: (cosine, text_hash) for pk, cosine, text_hash in rows}
    return [Candidate(pk, roots[pk], *cosines.get(pk, (None, ""))) for pk in ids if pk in roots]


def _rows(query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        return cursor.fetchall()
