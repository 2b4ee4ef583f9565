"""A whole portal of its own for a drill: Postgres, Valkey, web processes, workers and beat.

The servers lie in one private folder; each drill has a fresh database on them. Nothing of it
outlives the drill.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.request import urlopen

import psycopg
import redis
from django.db import connection

from support import local

PATIENCE = 240.0  # seconds until a drill gives up; none waits this long when all is well
LOOK_SECONDS = 0.05
TEMPLATE = local.DATABASE
WEB = [
    "gunicorn", "{web}", "--bind", "127.0.0.1:{port}", "--workers", "2", "--threads", "4",
    "--keep-alive", "75",
    "--no-control-socket", "--graceful-timeout", "10",
]  # fmt: skip
BEAT = ["celery", "-A", "support", "beat", "--schedule", "{folder}/{name}"]
APPS = {"mail": "support.celery:mail_app", "training": "support.celery:training_app"}


class GaveUp(Exception):
    """What a drill waited for did not happen."""


class NotPossible(Exception):
    """This machine, or who runs the drill, cannot make that fault."""


@dataclass
class Portal:
    """The processes of one drill, on a database of its own."""

    name: str
    folder: Path
    services: local.Services
    environ: dict[str, str] = field(default_factory=dict)
    running: dict[str, "Popen[bytes]"] = field(default_factory=dict)
    commands: dict[str, tuple[list[str], dict[str, str]]] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)  # of each web process, by its name

    def __enter__(self) -> "Portal":
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if self.postgres.process.poll() is not None:
            self.start_postgres()
        with self.maintenance() as server:
            server.execute(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')
            server.execute(f'CREATE DATABASE "{self.name}" TEMPLATE {TEMPLATE}')
            # Else a crash turns the copy's sequences back: they count on what the template logged.
            server.execute("CHECKPOINT")
        connection.close()
        connection.settings_dict["NAME"] = self.name
        self.environ = os.environ | {"DATABASE_URL": self.address}
        if self.valkey.process.poll() is not None:
            self.valkey.restart()
        self.flush()
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.running):
            self.kill(name)
        connection.close()

    @property
    def postgres(self) -> local.Server:
        assert self.services.postgres
        return self.services.postgres

    @property
    def valkey(self) -> local.Server:
        assert self.services.valkey
        return self.services.valkey

    @property
    def address(self) -> str:
        """The URL of this drill's database."""
        return f"{self.services.database_url.rpartition('/')[0]}/{self.name}"

    @contextmanager
    def maintenance(self) -> Iterator["psycopg.Connection[Any]"]:
        """A connection to the server, beside all databases."""
        url = self.services.database_url.rpartition("/")[0] + "/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection

    def flush(self) -> None:
        """Make the broker forget everything."""
        redis.Redis.from_url(self.valkey.url).flushall()

    def hears_bells(self) -> bool:
        """Whether a worker took one of the bells that were rung since the broker began."""
        broker = redis.Redis.from_url(self.valkey.url)
        rung = broker.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"]
        return bool(rung > self.bells())

    def bells(self) -> int:
        """How many bells no worker that checks has taken yet."""
        return int(redis.Redis.from_url(self.valkey.url).llen("checks"))

    def kill_postgres(self) -> None:
        """End Postgres with all its processes at once, as when its machine loses its power."""
        pids = tree(self.postgres.process.pid)
        self.postgres.kill()
        for pid in pids[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start_postgres(self) -> None:
        """Start it again where it was; what it had promised is read back from its log."""
        for _ in range(20):
            try:
                return self.postgres.restart()
            except local.CannotStart:  # a process of its predecessor is still there
                time.sleep(0.2)
        raise GaveUp("Postgres starts again")

    # --- Processes ----------------------------------------------------------------------------

    def start_web(self, name: str = "web", *, app: str = "support.wsgi", **environ: str) -> str:
        """Start a web server; return its address once it answers."""
        port = local.free_port()
        words = [word.format(web=app, port=port) for word in WEB]
        self.urls[name] = f"http://127.0.0.1:{port}"
        self._start(name, words, environ)
        self.await_web(name)
        return self.urls[name]

    def await_web(self, name: str = "web") -> None:
        self.wait(lambda: _answers(f"{self.urls[name]}/livez"), f"{name} answers")

    def start_worker(
        self, name: str = "checks", *, queue: str = "", app: str = "", **environ: str
    ) -> None:
        """Start a worker of this queue; it may need seconds to load its networks."""
        queue = queue or name.partition("-")[0]
        app = app or APPS.get(queue, "support")
        words = ["celery", "-A", app, "worker", "-Q", queue, "-c", "1", "-n", f"{name}@%h"]
        self._start(name, words, environ)

    def start_beat(self, name: str = "beat") -> None:
        self._start(name, [word.format(folder=self.folder, name=name) for word in BEAT], {})

    def _start(self, name: str, words: list[str], environ: dict[str, str]) -> None:
        self.commands[name] = words, environ
        argv = [sys.executable, "-m", *words]
        self.running[name] = local.spawn(argv, log=self.log(name), env=self.environ | environ)

    def start_again(self, name: str) -> None:
        """Start what ended, as it was; a web process on the same port."""
        self._start(name, *self.commands[name])

    def stop(self, name: str) -> int:
        """Tell it to end, and wait for that; its exit status, of SIGKILL where it took too long."""
        process = self.running.pop(name)
        local.stop(process)
        return process.wait()

    def reload(self, name: str) -> None:
        """Let a web server replace its processes; return once the old ones are gone."""
        process = self.running[name]
        old = set(children_of(process.pid))
        process.send_signal(signal.SIGHUP)
        self.wait(lambda: not old & set(children_of(process.pid)), f"{name} has new processes")
        self.await_web(name)

    def kill(self, name: str) -> None:
        """End it with all its children at once: nobody of them can say a word."""
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_child(self, name: str) -> bool:
        """Kill one child of a process; whether there was one."""
        children = children_of(self.running[name].pid)
        for pid in children[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(children)

    def keep_running(self) -> list[str]:
        """As a supervisor does: start again what ended by itself; return the names."""
        ended = [name for name, process in self.running.items() if process.poll() is not None]
        for name in ended:
            self.start_again(name)
        return ended

    # --- What it says -------------------------------------------------------------------------

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def says(self, name: str, words: str) -> bool:
        file = self.log(name)
        return file.exists() and words in file.read_text(errors="replace")

    def query(self, statement: str, *args: object) -> list[tuple[Any, ...]]:
        """Rows of a statement, on a connection of its own."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            return connection.execute(statement, args).fetchall()

    def threads(self, name: str) -> int:
        """How many threads a process and its children have."""
        pids = tree(self.running[name].pid)
        return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids)

    def connections(self) -> int:
        """How many there are to this drill's database, beside the one that asks."""
        asked = "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = %s"
        return int(self.query(asked, self.name)[0][0])

    def pause(self, seconds: float) -> None:
        """Let time pass, as a supervisor does: what ended by itself is started again."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.keep_running()
            time.sleep(LOOK_SECONDS)

    def wait(self, condition: Callable[[], Any], what: str, *, seconds: float = PATIENCE) -> float:
        """Return after how many seconds it was true. Raises GaveUp."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() > begun + seconds:
                raise GaveUp(f"not within {seconds:.0f} s: {what}")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - begun


def children_of(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    return [pid, *(one for child in children_of(pid) for one in tree(child))]


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """Let these processes stand still meanwhile: they are there, and do nothing."""
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
