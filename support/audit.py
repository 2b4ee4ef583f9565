"""The one way into the audit trail. Ids and plain values only: texts can be erased, these not.

Postgres chains each entry to the one before when its transaction commits (support.models.audit).
Whether the chain holds is worked out here anew, without the database's own functions: who can
change the entries could change those.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from support.models import AuditEntry, AuditHead, Merge, Question, User


def record(
    action: str,
    *,
    by: User | None,
    now: datetime,
    question: Question | None = None,
    **details: object,
) -> None:
    """Write down that `by` did `action`."""
    AuditEntry.objects.create(action=action, by=by, at=now, question=question, details=details)


def record_merge(action: str, edge: Merge, *, by: User, now: datetime) -> None:
    """Write a merge or unmerge into the histories of both questions."""
    for question, role in ((edge.duplicate, "duplicate"), (edge.canonical, "canonical")):
        record(
            action,
            by=by,
            now=now,
            question=question,
            role=role,
            merge=edge.pk,
            duplicate=edge.duplicate_id,
            canonical=edge.canonical_id,
            probability=edge.probability,
            release=edge.release,
            reason_given=bool(edge.reason),
        )


# --- Whether it still says what it said -------------------------------------------------------

BEGINNING = hashlib.sha256(b"").digest()  # what the first link holds on to
AT_ONCE = 2000  # rows that are fetched together

# Entries and links in the order of the chain; what only one of the two tables has comes too.
TRAIL = """
    SELECT link.position, link.previous, link.hash, link.entry_id, entry.id,
        to_char(entry.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), entry.by_id,
        to_jsonb(entry.action)::text, entry.question_id, entry.details::text
    FROM support_auditentry AS entry FULL JOIN support_auditlink AS link ON link.entry_id = entry.id
    ORDER BY link.position, entry.id
"""


@dataclass(frozen=True)
class Broken:
    """The first place at which the trail is not what it was."""

    position: int | None  # None: the entry is in no chain
    entry: int | None
    why: str


@dataclass(frozen=True)
class Verified:
    """What came of reading the whole trail."""

    number: int  # of entries that are as they were written, up to the first that is not
    head: str  # the last of them, as POSITION:HASH
    broken: Broken | None


class NoHead(Exception):
    """What was given is not POSITION:HASH."""


def read_head(said: str) -> tuple[int, bytes]:
    """Position and hash of a head that was written down. Raises NoHead."""
    position, _, digits = said.partition(":")
    try:
        head = int(position), bytes.fromhex(digits)
    except ValueError as error:
        raise NoHead(said) from error
    if head[0] < 1 or len(head[1]) != len(BEGINNING):
        raise NoHead(said)
    return head


@transaction.atomic
def verify(*, noted: Mapping[int, bytes] | None = None) -> Verified:
    """Read the trail from its beginning to the first place that is not as it was written.

    `noted` are heads that were written down elsewhere, hashes by position: the trail must still
    have them. What is written meanwhile does no harm.
    """
    known = {head.position: bytes(head.hash) for head in AuditHead.objects.all()}  # before the rows
    known |= noted or {}
    number, last = 0, BEGINNING
    with connection.chunked_cursor() as cursor:
        cursor.execute(TRAIL)
        for row in _rows(cursor):
            if why := _fault(row, number + 1, last, known):
                return _verified(number, last, Broken(row[0], row[4] or row[3], why))
            number, last = row[0], bytes(row[2])
    if missing := [position for position in known if position > number]:
        gone = Broken(number + 1, None, f"is gone, and all behind it to {max(missing)}")
        return _verified(number, last, gone)
    return _verified(number, last, None)


def _rows(cursor: Any) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(AT_ONCE):
        yield from rows


def _verified(number: int, last: bytes, broken: Broken | None) -> Verified:
    return Verified(number, f"{number}:{last.hex()}" if number else "", broken)


def _fault(
    row: tuple[Any, ...], expected: int, last: bytes, known: Mapping[int, bytes]
) -> str | None:
    """Why a link with its entry is not the one that follows `last`; None where it is."""
    position, previous, made, _, entry, *said = row
    if position is None:
        return "was written past the chain"
    if position != expected:
        return f"follows a gap: {expected} is gone"
    if entry is None:
        return "is gone"
    if bytes(previous) != last:
        return "does not hold on to the one before"
    if bytes(made) != digest(position, last, entry, *said):
        return "does not say what was written"
    if known.get(position, made) != made:
        return "is another than the head that was noted"
    return None


def digest(
    position: int, previous: bytes, entry: int, at: str, by: int | None, action: str,
    question: int | None, details: str,
) -> bytes:  # fmt: skip
    """The hash of a link: SHA-256 over a line for each part."""
    ids = ["-" if one is None else str(one) for one in (by, question)]
    parts = [str(position), previous.hex(), str(entry), at, ids[0], action, ids[1], details]
    return hashlib.sha256("\n".join(parts).encode()).digest()
