"""Whether a worker that runs has stopped working: its process is there, and consumes nothing.

Such a worker gives no sign of life (support.sweep), while questions wait that nobody holds. Who is
in the midst of a batch holds its questions, so that none is cut short; who has only just begun
loads its networks, and gets longer. Read in SQL: what starts the workers of a demo has no Django
settings of theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

QUEUE = "checks"  # whose work is seen to wait
SILENT_SECONDS = 180.0  # without a sign of life; one is given every minute
FIRST_SECONDS = 600.0  # until the first sign of a process: it may be loading its networks
WAITS_SECONDS = 60.0  # a question has waited so long: longer than a sweep, or a batch
AGAIN_SECONDS = 15.0  # then look again: signs were late too where Postgres was away

SIGNS = """
    SELECT
        EXISTS (SELECT FROM support_outboxentry WHERE settled_at IS NULL AND quarantined_at IS NULL
            AND put_at < now() - make_interval(secs => %s)),
        EXISTS (SELECT FROM support_outboxentry WHERE leased_until > now()
            AND settled_at IS NULL AND quarantined_at IS NULL),
        (SELECT extract(epoch FROM now() - seen_at)::float FROM dedup_worker WHERE name = %s),
        coalesce((SELECT %s = ANY(queues) FROM dedup_worker WHERE name = %s), %s = %s)
"""


class Cursor(Protocol):
    """Django's, or psycopg's own."""

    def execute(self, query: Any, params: Sequence[Any], /) -> Any: ...
    def fetchone(self) -> Any: ...


@dataclass(frozen=True)
class Signs:
    """What can be seen of a worker and its work."""

    waits: bool  # a question for its queue, for longer than a while
    is_held: bool  # somebody is at work on one
    silent_seconds: float | None  # since its last sign of life; None: it never gave one

    def is_silent(self, *, running_seconds: float) -> bool:
        """Whether a process that has run for so long should have given a sign."""
        if self.silent_seconds is None or self.silent_seconds > running_seconds:
            return running_seconds > FIRST_SECONDS  # none since it began
        return self.silent_seconds > SILENT_SECONDS

    def is_stuck(self, *, running_seconds: float) -> bool:
        """Whether it is to be ended: silent while work waits that nobody does."""
        is_silent = self.is_silent(running_seconds=running_seconds)
        return is_silent and self.waits and not self.is_held


def read(cursor: Cursor, name: str) -> Signs:
    """The signs of the worker of this name, as `checks@host`."""
    queue = name.partition("@")[0]
    cursor.execute(SIGNS, [WAITS_SECONDS, name, QUEUE, name, queue, QUEUE])
    waits, is_held, silent, serves = cursor.fetchone()
    return Signs(waits and serves, is_held, silent)
