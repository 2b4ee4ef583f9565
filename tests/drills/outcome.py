"""What a drill found: counted in the database, beside what people were told."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
from django.db import connection

from tests.drills.load import Load
from tests.drills.portal import Portal

ACCEPTED_IS_GONE = """
    SELECT count(*) FROM unnest(%s::bigint[]) AS accepted(id)
    WHERE NOT EXISTS (SELECT FROM support_question WHERE id = accepted.id)
       OR NOT EXISTS (SELECT FROM support_outboxentry WHERE question_id = accepted.id)"""
DOUBLED = {
    "flags": """SELECT count(*) - count(DISTINCT (least(older_id, newer_id),
                greatest(older_id, newer_id))) FROM dedup_flag WHERE status = 'open'""",
    "scores": """SELECT count(*) - count(DISTINCT (least(older_id, newer_id),
                 greatest(older_id, newer_id), release_id)) FROM dedup_score""",
    "keys": """SELECT count(*) - count(DISTINCT body ->> 'id') FROM support_idempotencyrecord
               WHERE status = 201""",
}


@dataclass
class Outcome:
    """Figures of a drill, and the promises that broke in it."""

    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def note(self, **figures: Any) -> None:
        """Add figures to what is reported."""
        self.figures |= {
            name: round(value, 2) if isinstance(value, float) else value
            for name, value in figures.items()
        }

    def promise(self, *, holds: bool, words: str) -> None:
        """Note that a promise broke, unless it holds."""
        if not holds:
            self.broken.append(words)

    def count(
        self, portal: Portal, load: Load, *, quarantined: int = 0, unavailable: bool = False
    ) -> None:
        """Compare what people were told with what is there; all has to be checked by now.

        `quarantined` questions are expected in quarantine, 503 only where it is `unavailable`.
        """
        connection.close()  # it may be one that a fault cut
        entries = _entries(portal)
        accepted = load.accepted()
        ((gone,),) = portal.query(ACCEPTED_IS_GONE, accepted)
        doubled = {what: portal.query(query)[0][0] for what, query in DOUBLED.items()}
        statuses = Counter(answer.status for answer in load.answers)
        failures = sum(n for status, n in statuses.items() if status >= 500 and status != 503)
        bare = sum(a.status == 503 and not a.retry_after for a in load.answers)
        took = [answer.seconds for answer in load.answers if answer.status == 201]
        self.note(
            accepted=len(accepted), checked=entries["checked"],
            lost=gone + entries["waiting"], doubled=sum(doubled.values()),
            quarantined=entries["quarantined"],
            healthy_quarantined=max(0, entries["quarantined"] - quarantined),
            unavailable=statuses[503], unanswered=statuses[0],
            **{"5xx": failures}, **milliseconds(took),
        )  # fmt: skip
        self.promise(holds=bool(accepted), words="somebody was let in")
        self.promise(holds=len(accepted) == len(set(accepted)), words="each question has one row")
        self.promise(holds=gone == 0, words="no accepted question is lost")
        self.promise(holds=entries["waiting"] == 0, words="every question is checked")
        self.promise(holds=not any(doubled.values()), words=f"nothing is doubled: {doubled}")
        self.promise(holds=failures == 0, words=f"no request fails: {dict(statuses)}")
        self.promise(holds=not statuses[404], words=f"each page is there: {dict(statuses)}")
        self.promise(holds=bare == 0, words="503 says when to come again")
        self.promise(
            holds=unavailable or not statuses[503], words="no request is put off while all is well"
        )
        self.promise(
            holds=entries["quarantined"] == quarantined,
            words="those in quarantine are those that have to be",
        )


def _entries(portal: Portal) -> dict[str, int]:
    ((checked, waiting, quarantined),) = portal.query(
        """SELECT count(*) FILTER (WHERE settled_at IS NOT NULL),
                  count(*) FILTER (WHERE settled_at IS NULL AND quarantined_at IS NULL),
                  count(*) FILTER (WHERE quarantined_at IS NOT NULL) FROM support_outboxentry"""
    )
    return {"checked": checked, "waiting": waiting, "quarantined": quarantined}


def left(portal: Portal) -> dict[str, int]:
    """How it stands with all questions, as far as the database can say it."""
    try:
        return _entries(portal)
    except psycopg.Error:
        return {}


def waiting(portal: Portal) -> int:
    """How many questions are neither checked nor in quarantine."""
    return _entries(portal)["waiting"]


def checked(portal: Portal) -> int:
    """How many questions are checked."""
    return _entries(portal)["checked"]


def quarantined(portal: Portal) -> int:
    """How many questions were given up."""
    return _entries(portal)["quarantined"]


def begin(portal: Portal, load: Load) -> None:
    """Let a worker load its networks and check something, before people ask in numbers."""
    load.ask_many(2)
    portal.wait(lambda: checked(portal), "a first check")


def held(portal: Portal) -> list[str]:
    """The tokens of all claims that workers hold, or held when they died."""
    rows = portal.query(
        "SELECT token FROM support_outboxentry WHERE token IS NOT NULL AND settled_at IS NULL"
    )
    return [str(token) for (token,) in rows]


def end_leases(portal: Portal) -> None:
    """As if the seconds of all leases had passed: a short form does not wait for them."""
    portal.query(
        "UPDATE support_outboxentry SET leased_until = now() WHERE token IS NOT NULL RETURNING id"
    )


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile of the time until something was accepted."""
    if not seconds:
        return {}
    p50, p99 = np.percentile(np.asarray(seconds) * 1000, [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99)}
