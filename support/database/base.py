"""What Django loads as its engine: Postgres, with patience that may end."""

from typing import Any

from django.db.backends.postgresql import base
from psycopg import IsolationLevel

from support.database import waiting

USABLE_SECONDS = 1.0  # in which a connection says that it still is one


class DatabaseWrapper(base.DatabaseWrapper):
    patience: float | None = None  # seconds for each statement; None: as long as it takes

    def get_new_connection(self, conn_params: dict[str, Any]) -> waiting.Connection:
        self.isolation_level = IsolationLevel.READ_COMMITTED
        made = waiting.Connection.connect(**conn_params)
        made.patience = lambda: self.patience
        return made

    def is_usable(self) -> bool:
        before, self.patience = self.patience, USABLE_SECONDS
        try:
            return bool(super().is_usable())
        finally:
            self.patience = before
