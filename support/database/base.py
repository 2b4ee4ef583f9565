"""What Django loads as its engine: Postgres, with patience that may end."""

import time
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg import IsolationLevel

from support.database import waiting

USABLE_SECONDS = 1.0  # in which a connection says that it still is one


class DatabaseWrapper(base.DatabaseWrapper):
    patience: float | None = None  # seconds for each statement; None: as long as it takes

    def get_new_connection(self, conn_params: dict[str, Any]) -> waiting.Connection:
        """Raises OperationalError at once where a request before this one waited in vain: those
        behind it would wait for as long, and their queue would grow."""
        if self.patience is not None and waiting.stands_still():
            raise psycopg.OperationalError("Postgres stood still a moment ago")
        self.isolation_level = IsolationLevel.READ_COMMITTED
        try:
            made = waiting.Connection.connect(**conn_params)
        except psycopg.errors.ConnectionTimeout:
            waiting.note_standstill()
            raise
        made.patience = lambda: self.patience
        return made

    def is_usable(self) -> bool:
        before, self.patience, begun = self.patience, USABLE_SECONDS, time.monotonic()
        try:
            is_usable = bool(super().is_usable())
        finally:
            self.patience = before
        if not is_usable and time.monotonic() - begun >= USABLE_SECONDS:
            waiting.note_standstill()
        return is_usable
