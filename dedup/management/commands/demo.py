import json
import os
import signal
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dedup.management.demo.seeding import LOGINS, PASSWORD
from dedup.management.demo.stack import DidNotStart, Stack, choose_port
from support import local

WATCH_SECONDS = 5.0  # between two looks for a worker that consumes nothing


class Command(BaseCommand):
    help = "Run the whole portal on this machine, filled with a demo's questions, until Ctrl-C."
    requires_system_checks = ()  # they need the services that are started here
    watched_at = 0.0

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000, help="or the next one that is free")
        parser.add_argument(
            "--check",
            action="store_true",
            help="on data of its own, go the whole road, print figures, end with exit 0 or 1",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.console = Console(stderr=True)
        for signal_ in (signal.SIGINT, signal.SIGTERM):  # also where a shell told us to ignore it
            signal.signal(signal_, _interrupt)
        given = {
            name: value
            for name, value in os.environ.items()
            if not (options["check"] and name in {"DATABASE_URL", "REDIS_URL"})
        }
        try:
            if options["check"]:
                with tempfile.TemporaryDirectory(prefix="askonce-check-") as folder:
                    self._run(Path(folder), given, options)
            else:
                self._run(settings.LOCAL_FOLDER, given, options)
        except (local.AlreadyRunning, local.CannotStart, DidNotStart) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self.console.print("Stopped. The data is kept for the next run.")

    def _run(self, folder: Path, given: dict[str, str], options: dict[str, Any]) -> None:
        begun = time.monotonic()
        port = choose_port(options["host"], options["port"])
        self.console.print("Starting Postgres and Redis")
        with Stack.open(folder, options["host"], port, given) as stack:
            with self.console.status("") as status:
                self._start(stack, status.update)
            self.console.print(f"Started in {time.monotonic() - begun:.0f} s.")
            if options["check"]:
                self._check(stack)
            else:
                self._greet(stack)
                self._watch(stack)

    def _start(self, stack: Stack, say: Any) -> None:
        say("Preparing the database and the pages' files")
        stack.manage("migrate", "--no-input")
        stack.manage("collectstatic", "--no-input")
        say("Writing the demo's questions")
        stack.manage("seed_demo")
        stack.run("web")
        say("Proving the release")
        stack.manage("activate_release", settings.DEDUP_RELEASE, "--if-none")
        for name in ("checks", "interactive", "mail", "training", "beat"):
            stack.run(name)
        say("Waiting for the first page")
        stack.await_pages()

    def _greet(self, stack: Stack) -> None:
        table = Table(title=f"AskOnce runs at {stack.url}", title_style="bold")
        for heading in ("user name", "password", "sees"):
            table.add_column(heading)
        sees = [
            "asks, searches, follows",
            "reviews flagged pairs at /review/",
            "merges, /admin/ too",
        ]
        for login, what in zip(LOGINS, sees, strict=True):
            table.add_row(login, PASSWORD, what)
        self.console.print(table)
        self.console.print(f"Logs lie in {stack.folder / 'logs'}. Ctrl-C stops everything.")

    def _watch(self, stack: Stack) -> None:
        """Show how far the checks are, then keep everything running until somebody stops it."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self.console) as progress:
            bar = progress.add_task("Checking questions for duplicates", total=None)
            while True:
                self._keep_alive(stack)
                at = stack.progress()
                progress.update(bar, total=at.checked + at.waiting, completed=at.checked)
                if not at.waiting:
                    break
                time.sleep(1)
        self.console.print("All questions are checked: the review queue is ready.")
        while True:
            self._keep_alive(stack)
            time.sleep(1)

    def _keep_alive(self, stack: Stack) -> None:
        for name in stack.restart_ended():
            self.console.print(f"[yellow]{name} ended by itself and was started again.")
        if time.monotonic() - self.watched_at < WATCH_SECONDS:
            return
        for name in stack.restart_stuck():
            self.console.print(f"[yellow]{name} consumed nothing and was started again.")
        self.watched_at = time.monotonic()

    def _check(self, stack: Stack) -> None:
        report = stack.folder / "report.json"
        stack.manage("check_demo", stack.url, "--out", str(report), is_shown=True)
        found = json.loads(report.read_text())
        self.stdout.write(json.dumps(found["figures"]))
        if not found["is_good"]:
            raise SystemExit(1)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
