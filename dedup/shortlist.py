"""Question -> candidates, in SQL alone: neighbours by vector and by rare words, ranks fused.

Who may be compared is decided before anything is ranked. Where few rows may, their distances are
all computed; an index walk that filters afterwards finds next to nothing there (measured: 3 % of
the true neighbours where a filter keeps 1.4 % of the rows). Every statement costs a busy machine
a turn of its processor, so there are few of them.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.db import connection, transaction
from pgvector import HalfVector

from support.models.question import QuestionQuerySet

EXACT_BELOW = 2_000  # rows; so few are computed in a few milliseconds, whatever else there is
WALK_COST = 5  # an index walk visits one row in the time in which so many distances are computed
EF_SEARCH = 200
RARE_WORDS = 8
WORD_ROWS = 5_000  # about; more of the rarest words than stand in so many rows are not looked for
KNOWN_LENGTH = 8  # words that a question's own are counted on top of, so that short ones don't win
FUSION = 20  # reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)
VECTORS, WORDS = 1.0, 0.7  # what a place in a ranking counts

# The rarest words of a text, by the planner's statistics: frequent ones find everything. One that
# the statistics do not list is rarer than all that they do.
RARE = """
    WITH listed AS (
        SELECT known, most_common_elem_freqs AS shares FROM pg_stats,
            LATERAL (SELECT most_common_elems::text::text[] AS known) AS elements
        WHERE schemaname = current_schema AND tablename = 'support_question' AND attname = 'words'
    ), shared AS (
        SELECT lexeme, coalesce(
            share, (SELECT shares[cardinality(known) + 1] / 4 FROM listed), 0.001
        ) AS share
        FROM unnest(to_tsvector('english', %s)) AS word
        LEFT JOIN (SELECT unnest(known), unnest(shares[1:cardinality(known)]) FROM listed)
            AS frequent (common, share) ON common = lexeme
    ), ranked AS (
        SELECT lexeme, share, row_number() OVER rarest AS place, sum(share) OVER rarest * (
            SELECT reltuples FROM pg_class WHERE oid = 'support_question'::regclass
        ) AS together
        FROM shared WINDOW rarest AS (ORDER BY share, length(lexeme) DESC, lexeme)
    )
    SELECT lexeme, -ln(share) AS weight FROM ranked
    WHERE place = 1 OR (place <= %s AND together <= %s)"""


@dataclass(frozen=True)
class Candidate:
    """A question worth scoring, and how near it is; None where it has no vector that fits."""

    question_id: int
    root_id: int
    cosine: float | None
    text_hash: str = ""  # of the text that its vector was made of
    shares_words: bool = False  # rare ones, so that it would have been found without vectors


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
    near = [] if vector is None else by_vector(readable, vector, fingerprint, limit)
    worded = by_words(readable, text, limit)
    fused = fuse(near=near, worded=worded)
    return _with_cosine(fused[:limit], set(worded), vector, fingerprint)


def fuse(*, near: Sequence[int], worded: Sequence[int]) -> list[int]:
    """Return the ids of both rankings in the order of their weighted sum of reciprocal ranks."""
    weights: dict[int, float] = {}
    for ranking, weight in ((near, VECTORS), (worded, WORDS)):
        for rank, pk in enumerate(ranking, 1):
            weights[pk] = weights.get(pk, 0.0) + weight / (FUSION + rank)
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
    with transaction.atomic(savepoint=False):  # outside of one the settings would not hold
        if _are_few(ids, params, limit):
            # MATERIALIZED keeps the planner from walking the index and filtering afterwards.
            query = f"""
                WITH near AS MATERIALIZED (
                    SELECT question_id, vector <=> %s::halfvec AS distance FROM dedup_embedding
                    WHERE fingerprint = %s AND question_id IN ({ids})
                ) SELECT question_id FROM near ORDER BY distance, question_id LIMIT %s"""  # noqa: S608
            return [row[0] for row in _rows(query, [place, fingerprint, *params, limit])]
        # Ordered again: a walk that goes on until enough are found gives them nearly in order.
        query = f"""
            WITH near AS MATERIALIZED (
                SELECT question_id, vector <=> %s::halfvec AS distance FROM dedup_embedding
                WHERE fingerprint = %s AND question_id IN ({ids}) ORDER BY distance LIMIT %s
            ) SELECT question_id FROM near ORDER BY distance, question_id"""  # noqa: S608
        return [row[0] for row in _rows(query, [place, fingerprint, *params, limit])]


def _are_few(ids: str, params: Sequence[Any], limit: int) -> bool:
    """Whether all distances are computed sooner than an index walk finds `limit` that may be read.

    The walk visits `limit * all / few` rows, so both take as long at the root of
    `WALK_COST * limit * all`. Sets what either needs, for this transaction: at the usual price of a
    page the planner reads all vectors rather than look a few thousand up.
    """
    query = f"""
        WITH bound AS MATERIALIZED (
            SELECT greatest(%s, sqrt(%s * greatest(reltuples, 0)))::bigint AS rows
            FROM pg_class WHERE oid = 'dedup_embedding'::regclass
        ) SELECT (
                SELECT count(*) FROM (
                    SELECT FROM ({ids}) AS readable LIMIT (SELECT rows + 1 FROM bound)
                ) AS counted
            ) <= (SELECT rows FROM bound),
            set_config('hnsw.ef_search', %s, true),
            set_config('hnsw.iterative_scan', 'relaxed_order', true),
            set_config('random_page_cost', '1.1', true)"""  # noqa: S608
    width = str(max(EF_SEARCH, limit))
    return bool(_rows(query, [EXACT_BELOW, WALK_COST * limit, *params, width])[0][0])


def by_words(readable: QuestionQuerySet, text: str, limit: int) -> list[int]:
    """Ids of the questions that share the rarest words of a text, likeliest first.

    Each shared word counts the more, the rarer it is; what a question says besides counts against.
    """
    ids, params = readable.order_by().values("pk").query.sql_with_params()
    query = f"""
        WITH rare AS MATERIALIZED ({RARE})
        SELECT id FROM rare JOIN support_question ON words @@ quote_literal(lexeme)::tsquery
        WHERE id IN ({ids}) GROUP BY id
        ORDER BY sum(weight) / (%s + length(words)) DESC, id LIMIT %s"""  # noqa: S608
    return [
        row[0] for row in _rows(query, [text, RARE_WORDS, WORD_ROWS, *params, KNOWN_LENGTH, limit])
    ]


def _with_cosine(
    ids: Sequence[int], worded: Set[int], vector: np.ndarray | None, fingerprint: str
) -> list[Candidate]:
    query = """
        SELECT id, coalesce(canonical_id, id), 1 - (vector <=> %s::halfvec),
            coalesce(text_hash, '')
        FROM support_question LEFT JOIN dedup_embedding ON question_id = id AND fingerprint = %s
        WHERE id = ANY(%s)"""
    place = None if vector is None else point(vector).to_text()
    rows = _rows(query, [place, fingerprint, list(ids)])
    found = {
        pk: Candidate(pk, root, cosine, text_hash, pk in worded)
        for pk, root, cosine, text_hash in rows
    }
    return [found[pk] for pk in ids if pk in found]


def _rows(query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        return cursor.fetchall()
