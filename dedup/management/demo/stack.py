"""The processes of a portal on one machine: the same commands as on many, started by one."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from dedup import watchdog
from support import local

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = "environment.json"  # what support.settings reads while a demo runs
SECRET = "secret.key"  # noqa: S105 - a file's name
ANSWER_SECONDS = 60.0
RESTARTS = 5  # of one process; one that ends more often than this is broken

PROCESSES: dict[str, list[str]] = {
    "checks": ["celery", "-A", "support", "worker", "-Q", "checks", "-c", "1", "-n", "checks@%h"],
    "interactive": [
        "celery", "-A", "support", "worker", "-Q", "interactive", "-c", "1", "-n", "interactive@%h",
    ],
    "mail": [
        "celery", "-A", "support.celery:mail_app", "worker", "-Q", "mail", "-c", "1",
        "-n", "mail@%h",
    ],
    "training": [
        "celery", "-A", "support.celery:training_app", "worker", "-Q", "training", "-P", "threads",
        "-c", "1", "-n", "training@%h",
    ],
    "beat": ["celery", "-A", "support", "beat", "--schedule", "{folder}/beat"],
    "web": [
        "gunicorn", "support.wsgi", "--bind", "{host}:{port}", "--workers", "2", "--threads", "4",
        "--keep-alive", "75",
        "--no-control-socket",
    ],
}  # fmt: skip


class DidNotStart(Exception):
    """A step or process of the portal failed; the message has the end of its output."""


@dataclass(frozen=True)
class Progressed:
    """How many questions were checked, wait, or are in quarantine."""

    checked: int
    waiting: int
    quarantined: int


@dataclass
class Stack:
    """Services, web, workers and beat, all children of this process; ends them on exit."""

    folder: Path
    host: str
    port: int
    services: local.Services
    environ: dict[str, str] = field(default_factory=dict)
    children: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    began_at: dict[str, float] = field(default_factory=dict)  # of each child
    stuck_since: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, host: str, port: int, given: Mapping[str, str]) -> "Stack":
        """Start Postgres and Redis, or take those that `given` names. Raises as local.start."""
        services = local.start(folder, environ=given)
        stack = cls(services.folder, host, port, services)
        stack.environ = dict(given) | stack._settings()
        note = stack.folder / ENVIRONMENT
        note.touch(mode=0o600)
        note.write_text(json.dumps(stack._settings()))
        return stack

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_: object) -> None:
        (self.folder / ENVIRONMENT).unlink(missing_ok=True)
        for child in reversed(self.children.values()):  # the web first: nothing new comes in
            child.send_signal(signal.SIGTERM)
        for child in self.children.values():
            local.stop(child)
        self.services.stop()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def manage(self, *words: str, is_shown: bool = False) -> None:
        """Run a management command to its end, its output in a log or shown. Raises DidNotStart."""
        log = None if is_shown else self._log(words[0])
        argv = [sys.executable, str(ROOT / "manage.py"), *words]
        child = local.spawn(argv, log=log, env=self.environ)
        try:
            if child.wait() != 0:
                raise DidNotStart(f"{words[0]} failed:\n{_tail(log) if log else ''}")
        finally:
            local.stop(child)

    def run(self, name: str) -> None:
        """Start one of PROCESSES."""
        places = {"folder": str(self.folder), "host": self.host, "port": str(self.port)}
        words = [word.format(**places) for word in PROCESSES[name]]
        argv = [sys.executable, "-m", *words]
        self.children[name] = local.spawn(argv, log=self._log(name), env=self.environ)
        self.began_at[name] = time.monotonic()

    def await_pages(self) -> None:
        """Return when the site answers. Raises DidNotStart."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not _answers(f"{self.url}/readyz"):
            if self.children["web"].poll() is not None or time.monotonic() > deadline:
                raise DidNotStart(f"The site does not answer:\n{_tail(self._log('web'))}")
            time.sleep(0.1)

    def restart_ended(self) -> list[str]:
        """Start again what ended by itself; return the names. Raises DidNotStart in the end."""
        ended = [name for name, child in self.children.items() if child.poll() is not None]
        for name in ended:
            self.restarts[name] = self.restarts.get(name, 0) + 1
            if self.restarts[name] > RESTARTS:
                raise DidNotStart(f"{name} keeps ending:\n{_tail(self._log(name))}")
            self.run(name)
        return ended

    def restart_stuck(self) -> list[str]:
        """Kill and start again a worker that is there and consumes nothing; return the names.

        It holds no question then: nothing is lost. Where Postgres is away, nobody is judged.
        """
        name, now = watchdog.QUEUE, time.monotonic()
        if name not in self.children or not self._is_stuck(name, now):
            self.stuck_since.pop(name, None)
            return []
        if now - self.stuck_since.setdefault(name, now) < watchdog.AGAIN_SECONDS:
            return []
        child = self.children[name]
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # a process that was stopped hears nothing else
        child.wait()
        del self.stuck_since[name]
        self.run(name)
        return [name]

    def _is_stuck(self, name: str, now: float) -> bool:
        try:
            with psycopg.connect(self.services.database_url, connect_timeout=3) as connection:
                signs = watchdog.read(connection.cursor(), f"{name}@{socket.gethostname()}")
        except psycopg.Error:
            return False
        return signs.is_stuck(running_seconds=now - self.began_at[name])

    def progress(self) -> Progressed:
        """How far the checks are."""
        query = """
            SELECT count(*) FILTER (WHERE settled_at IS NOT NULL),
                   count(*) FILTER (WHERE settled_at IS NULL AND quarantined_at IS NULL),
                   count(*) FILTER (WHERE quarantined_at IS NOT NULL) FROM support_outboxentry"""
        with psycopg.connect(self.services.database_url) as connection:
            row = connection.execute(query).fetchone()
        return Progressed(*(row or (0, 0, 0)))

    def _settings(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.services.database_url,
            "REDIS_URL": self.services.redis_url,
            "SECRET_KEY": _secret(self.folder / SECRET),
            "ASKONCE_FOLDER": str(self.folder),
            "DEDUP_RELEASES_FOLDER": str(self.folder / "releases"),
            "DEDUP_CHECKPOINTS": str(self.folder / "checkpoints"),
            "ALLOWED_HOSTS": ",".join({"localhost", "127.0.0.1", "[::1]", self.host}),
            "SITE_URL": self.url,
            "HTTPS": "false",
            "DEMO": "true",
        }

    def _log(self, name: str) -> Path:
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        return logs / f"{name}.log"


def choose_port(host: str, wanted: int) -> int:
    """`wanted` if nothing listens there, else the next port of 50 that is free, else any."""
    for port in range(wanted, wanted + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    return local.free_port()


def _secret(file: Path) -> str:
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(64))
    return file.read_text()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own http address
            return bool(response.status == 200)
    except OSError:
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])
