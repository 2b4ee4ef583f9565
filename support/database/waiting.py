"""A connection that is given up once an answer takes too long."""

from collections.abc import Callable
from typing import Any

import psycopg


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
