import os
import signal
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connection

from dedup import watchdog

END_SECONDS = 5.0  # to end in order; then it is killed


class Command(BaseCommand):
    help = "Say whether a worker on this machine gives signs of life; for a container's health."
    requires_system_checks = ()  # they would take longer than the question

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the worker's, as checks@host")
        parser.add_argument("--pidfile", required=True, help="that the worker was started with")
        parser.add_argument(
            "--end",
            action="store_true",
            help="end it where questions wait that nobody checks; what started it starts it again",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        file = Path(options["pidfile"])
        try:
            pid, began_at = int(file.read_text()), file.stat().st_mtime
        except (OSError, ValueError) as error:
            raise CommandError("No worker runs here.") from error
        signs = self._signs(options["name"])
        if signs is None:
            self.stdout.write("The database cannot be asked: nobody knows.")
            return
        if not signs.is_silent(running_seconds=time.time() - began_at):
            self.stdout.write("It gives signs of life, or has only just begun.")
            return
        if options["end"] and self._is_stuck_for_long(options["name"], began_at):
            _end(pid)
            raise CommandError("It consumed nothing while questions waited, and was ended.")
        raise CommandError("It gives no sign of life.")

    def _signs(self, name: str) -> watchdog.Signs | None:
        try:
            with connection.cursor() as cursor:
                return watchdog.read(cursor, name)
        except Error:  # away, or not migrated yet: not the worker's fault
            return None

    def _is_stuck_for_long(self, name: str, began_at: float) -> bool:
        for pause in (0.0, watchdog.AGAIN_SECONDS):
            time.sleep(pause)
            signs = self._signs(name)
            if signs is None or not signs.is_stuck(running_seconds=time.time() - began_at):
                return False
        return True


def _end(pid: int) -> None:
    """In order, or by force where it does not listen."""
    deadline = time.monotonic() + END_SECONDS
    try:
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(0.1)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
