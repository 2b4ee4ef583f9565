"""The database is gone, and a backup is there."""

import os
import subprocess
import time
from random import Random

import psycopg
from django.apps import apps
from django.db import connection
from psycopg.conninfo import conninfo_to_dict

from dedup.models import Draft
from support import audit, merging
from tests.drills import outcome
from tests.drills.load import Load
from tests.drills.outcome import Outcome
from tests.drills.portal import Portal
from tests.test_backups import TOOLS, command


def restored(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """A portal is backed up, once while people ask and once at rest; dropped, and restored by the
    guide's own lines. Then it serves as before."""
    found, under_load, at_rest = Outcome(), f"{portal.name}_load", portal.name
    load = Load([portal.start_web()], rng, pause=0.1)
    portal.start_worker()
    with load:
        load.ask_many(20 if short else 300)
        known = load.accepted()
        guided(portal, "pg_dump", under_load)
    restore(portal, under_load)
    missing = set(known) - ids_of(portal, under_load)
    found.promise(holds=not missing, words="a backup under load has all that was accepted before")

    portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    portal.stop("checks")
    portal.stop("web")
    before = hashes(portal)
    guided(portal, "pg_dump", at_rest)
    connection.close()
    with portal.maintenance() as server:
        server.execute(f'DROP DATABASE "{portal.name}"')
    begun = time.monotonic()
    restore(portal, at_rest)
    after = hashes(portal)
    differing = sorted(table for table in before if after.get(table) != before[table])
    found.promise(holds=not differing, words=f"all rows are equal by hash: {differing}")
    found.promise(holds=audit.verify().broken is None, words="the audit trail verifies")
    found.promise(holds=not merging.broken_pointers(), words="the forest is flat")

    portal.start_again("web")
    portal.await_web()
    found.note(
        tables=len(before), rows=sum(len(rows) for rows in before.values()),
        bytes=portal.folder.joinpath(f"{at_rest}.dump").stat().st_size,
        recovery_seconds=time.monotonic() - begun,
    )  # fmt: skip
    portal.start_again("checks")
    load.ask_many(2)
    portal.wait(lambda: not outcome.waiting(portal), "the restored portal checks")
    found.count(portal, load)
    return found


def guided(portal: Portal, tool: str, name: str) -> None:
    """Run the guide's line that begins with this tool; `name` is in the place of the database's
    and its file's."""
    given = conninfo_to_dict(portal.address)
    environ = os.environ | {
        "PATH": f"{TOOLS}:{os.environ['PATH']}", "DATABASE_URL": portal.address,
        "PGHOST": str(given["host"]), "PGPORT": str(given["port"]), "PGUSER": str(given["user"]),
        "PGPASSWORD": str(given["password"]),
    }  # fmt: skip
    subprocess.run(
        ["sh", "-ec", command(tool, name)], cwd=portal.folder, env=environ, check=True,
        capture_output=True,
    )  # fmt: skip


def restore(portal: Portal, name: str) -> None:
    """A new database out of the file of that name."""
    for tool in ("createdb", "pg_restore"):
        guided(portal, tool, name)


def ids_of(portal: Portal, name: str) -> set[int]:
    """The questions in a database beside the drill's."""
    with psycopg.connect(f"{portal.address.rpartition('/')[0]}/{name}") as copy:
        return {pk for (pk,) in copy.execute("SELECT id FROM support_question").fetchall()}


def hashes(portal: Portal) -> dict[str, list[str]]:
    """Of each table the hashes of its rows; drafts are not kept."""
    tables = [model._meta.db_table for model in apps.get_models() if model is not Draft]
    return {
        table: [md5 for (md5,) in portal.query(f'SELECT md5(t::text) FROM "{table}" t ORDER BY 1')]
        for table in tables
    }
