"""What Django loads as its engine: Postgres, with patience that may end."""

from collections.abc import Callable
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg import IsolationLevel

USABLE_SECONDS = 1.0  # in which a connection says that it still is one


class Connection(psycopg.Connection[Any]):
    """Is over once an answer took too long: what it is in the midst of, nobody knows."""

    patience: Callable[[], float | None] = staticmethod(lambda: None)

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        options.setdefault("timeout", self.patience())
        try:
            return super().wait(gen, *args, **options)
        except psycopg.errors._WaitTimeout:
            self.pgconn.finish()
            raise


class DatabaseWrapper(base.DatabaseWrapper):
    patience: float | None = None  # seconds for each statement; None: as long as it takes

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        self.isolation_level = IsolationLevel.READ_COMMITTED
        made = Connection.connect(**conn_params)
        made.patience = lambda: self.patience
        return made

    def is_usable(self) -> bool:
        before, self.patience = self.patience, USABLE_SECONDS
        try:
            return bool(super().is_usable())
        finally:
            self.patience = before
