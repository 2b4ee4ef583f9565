"""What benchmarks share: a database of their own, and how they count time."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
from django.db import connection
from psycopg.conninfo import conninfo_to_dict

from support import local

DATABASE = "askonce_bench"


@contextmanager
def scratch_database() -> Iterator[None]:
    """A database with our tables for a while: at DATABASE_URL, or on a server of our own."""
    with (
        tempfile.TemporaryDirectory(prefix="askonce-bench-") as folder,
        local.start(
            Path(folder), keep=False, durable=False,
            environ={"REDIS_URL": "none", "DATABASE_URL": os.environ.get("DATABASE_URL", "")},
        ) as services,
    ):  # fmt: skip
        server = conninfo_to_dict(services.database_url)
        given = {"HOST": server["host"], "PORT": server.get("port", ""), "USER": server["user"]}
        connection.close()
        connection.settings_dict |= given | {"PASSWORD": server.get("password", "")}
        connection.settings_dict["TEST"]["NAME"] = f"{DATABASE}_{os.getpid()}"
        name = connection.settings_dict["NAME"]
        with redirect_stdout(StringIO()):  # it says that the cache's table is there already
            connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
        try:
            yield
        finally:
            connection.creation.destroy_test_db(name, verbosity=0)


def milliseconds(spent: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile of seconds."""
    p50, p95 = np.percentile(np.asarray(spent) * 1000, [50, 95])
    return {"p50_ms": float(p50), "p95_ms": float(p95)}
