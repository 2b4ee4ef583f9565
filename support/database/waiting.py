"""A connection that is given up once an answer takes too long, and a breaker for new ones."""

import time
from collections.abc import Callable
from typing import Any

import psycopg

BREAK_SECONDS = 3.0  # after Postgres stood still, no request waits for a new connection so long

_stood_still_at = float("-inf")  # each process has a breaker of its own


class Connection(psycopg.Connection[Any]):
    """Is over then: how far its statement came, nobody knows."""

    patience: Callable[[], float | None] = staticmethod(lambda: None)  # seconds of a statement

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        options.setdefault("timeout", self.patience())
        try:
            return super().wait(gen, *args, **options)
        except psycopg.errors._WaitTimeout:
            self.pgconn.finish()
            raise


def note_standstill() -> None:
    """Postgres takes connections, and says nothing."""
    global _stood_still_at  # noqa: PLW0603 - the breaker
    _stood_still_at = time.monotonic()


def stands_still() -> bool:
    """Whether it did a moment ago."""
    return time.monotonic() - _stood_still_at < BREAK_SECONDS
