"""Postgres dies, stands still, takes nobody in, or has no room."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from django.db import connection

from tests.drills import outcome
from tests.drills.load import ASKED, READ, Answer, Load
from tests.drills.outcome import Outcome
from tests.drills.portal import GaveUp, NotPossible, Portal, frozen, tree

PEOPLE = 10  # at once, more than a web process has threads
ANSWERED_SECONDS = 10.0  # what any request takes at most, whatever Postgres does
BACK_SECONDS = 15.0  # after which people are let in again, once Postgres is
ROOM_MB = 24  # beside what a new portal needs


def database_killed(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Postgres loses its power under load; workers are left to themselves."""
    found, let_in, going_on = Outcome(), [], []
    url = portal.start_web()
    portal.start_worker()
    load = Load([url], rng, pause=0.5, reads=True)
    outcome.begin(portal, load)
    with load:
        for _ in range(2 if short else 5):
            portal.kill_postgres()
            time.sleep(rng.uniform(1, 3))
            portal.start_postgres()
            back, known = time.monotonic(), outcome.checked(portal)
            let_in.append(portal.wait(lambda since=back: _is_let_in(load, since), "one is let in"))
            if short:
                outcome.end_leases(portal)
            going_on.append(portal.wait(lambda n=known: outcome.checked(portal) > n, "a check"))
            portal.pause(rng.uniform(0, 2))
    took = portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    found.note(
        kills=len(let_in), let_in_seconds=[round(one, 1) for one in let_in],
        check_seconds=[round(one, 1) for one in going_on], recovery_seconds=took,
    )  # fmt: skip
    _count(found, portal, load, let_in=max(let_in))
    return found


def database_stopped(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """All processes of Postgres stand still: it takes connections, and says nothing."""
    found = Outcome()
    url = portal.start_web()
    portal.start_worker()
    with _crowd(portal, url, rng, found) as load:
        with frozen(tree(portal.postgres.process.pid)):
            time.sleep(10 if short else 30)
        back = time.monotonic()
        let_in = portal.wait(lambda: _is_let_in(load, back), "one is let in")
    _end(found, portal, load, short=short, let_in=let_in)
    return found


def connections_taken(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Others hold all connections that Postgres has, and the portal has none."""
    found = Outcome()
    url = portal.start_web()
    portal.start_worker()
    with _crowd(portal, url, rng, found) as load:
        with _all_connections(portal) as held:
            time.sleep(6 if short else 30)
            found.note(held=len(held))
        back = time.monotonic()
        let_in = portal.wait(lambda: _is_let_in(load, back), "one is let in")
    _end(found, portal, load, short=short, let_in=let_in)
    return found


def disk_full(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """The disk of the tables is full. It is a small one of its own, filled from outside; the log
    of Postgres lies on another, as is usual: without room for that, Postgres ends, which is the
    drill above."""
    found = Outcome()
    with _small_disk(portal) as disk:
        url = portal.start_web()
        portal.start_worker()
        with _crowd(portal, url, rng, found) as load:
            begun = time.monotonic()
            with _full(disk):
                portal.wait(lambda: _is_put_off(load, begun), "somebody is put off", seconds=120)
                full = time.monotonic()
                time.sleep(6 if short else 30)
            back = time.monotonic()
            let_in = portal.wait(lambda: _is_let_in(load, back), "one is let in")
        reads = [one.status for one in load.answers if one.what == READ and full < one.at < back]
        found.note(read_while_full=reads.count(200))
        found.promise(holds=reads.count(200) > 0, words="pages are read while the disk is full")
        _end(found, portal, load, short=short, let_in=let_in)
        for name in list(portal.running):
            portal.kill(name)
    return found


# --- What these have in common ----------------------------------------------------------------


@contextmanager
def _crowd(portal: Portal, url: str, rng: Random, found: Outcome) -> Iterator[Load]:
    """More people than the web process can serve at once, after a first check."""
    load = Load([url], rng, pause=3.0, threads=PEOPLE, reads=True)
    outcome.begin(portal, load)
    with load:
        threads, connections = portal.threads("web"), portal.connections()
        found.note(threads_before=threads, connections_before=connections)
        yield load


def _end(found: Outcome, portal: Portal, load: Load, *, short: bool, let_in: float) -> None:
    """Wait until all are checked, and compare what is left with what there was."""
    if short:
        outcome.end_leases(portal)
    took = portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    threads, connections = portal.threads("web"), portal.connections()
    found.note(
        threads_after=threads, connections_after=connections, let_in_seconds=let_in,
        recovery_seconds=took,
    )  # fmt: skip
    most = found.figures["connections_before"] + PEOPLE  # of threads that had not asked before
    found.promise(holds=threads <= found.figures["threads_before"] + PEOPLE, words="no threads")
    found.promise(holds=connections <= most, words="no connections pile up")
    _count(found, portal, load, let_in=let_in)
    found.promise(holds=found.figures["unavailable"] > 0, words="the fault was felt")


def _count(found: Outcome, portal: Portal, load: Load, *, let_in: float) -> None:
    longest = max(one.seconds for one in load.answers)
    found.note(longest_seconds=longest)
    found.promise(holds=longest <= ANSWERED_SECONDS, words=f"answers within {ANSWERED_SECONDS} s")
    found.promise(holds=let_in <= BACK_SECONDS, words=f"people come in within {BACK_SECONDS} s")
    found.count(portal, load, unavailable=True)
    found.promise(holds=not found.figures["unanswered"], words="every request gets an answer")


def _is_let_in(load: Load, since: float) -> bool:
    return any(one.status == 201 and one.at >= since for one in _newest(load))


def _is_put_off(load: Load, since: float) -> bool:
    return any(one.status == 503 and one.at >= since for one in _newest(load))


def _newest(load: Load) -> list[Answer]:
    return [one for one in load.answers[-200:] if one.what == ASKED]


@contextmanager
def _all_connections(portal: Portal) -> Iterator[list["psycopg.Connection[Any]"]]:
    """Hold every connection: those that the portal has are ended and taken."""
    held: list[psycopg.Connection[Any]] = []
    others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
    try:
        with portal.maintenance() as first:
            for _ in range(200):
                ((ended,),) = first.execute(others, [portal.name]).fetchall()
                with suppress(psycopg.OperationalError):
                    while True:
                        held.append(_connect(portal))
                if not ended:
                    break
            else:
                raise GaveUp("all connections are taken")
            yield held
    finally:
        for one in held:
            one.close()


def _connect(portal: Portal) -> "psycopg.Connection[Any]":
    url = portal.services.database_url.rpartition("/")[0] + "/postgres"
    return psycopg.connect(url, autocommit=True)


@contextmanager
def _small_disk(portal: Portal) -> Iterator[Path]:
    """A file system of its own for the portal's tables, with little room left."""
    with portal.maintenance() as server, tempfile.TemporaryDirectory(prefix="askonce-disk-") as at:
        Path(at).chmod(0o755)  # the server may be another user
        ((size, data),) = server.execute(
            "SELECT pg_database_size(%s), current_setting('data_directory')", [portal.name]
        ).fetchall()
        megabytes = size // 2**20 + ROOM_MB
        disk = Path(at) / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            raise NotPossible("to mount a small disk takes root")
        try:
            tables = disk / "tables"
            tables.mkdir(mode=0o700)
            owner = Path(data).stat()
            os.chown(tables, owner.st_uid, owner.st_gid)
            connection.close()
            server.execute(f"CREATE TABLESPACE small LOCATION '{tables}'")
            server.execute(f'ALTER DATABASE "{portal.name}" SET TABLESPACE small')
            try:
                yield disk
            finally:
                connection.close()
                server.execute(f'DROP DATABASE "{portal.name}" WITH (FORCE)')
                server.execute("DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


@contextmanager
def _full(disk: Path) -> Iterator[None]:
    """Write until there is no room, and take that away again."""
    filler = disk / "filler"
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        yield
    finally:
        filler.unlink()
